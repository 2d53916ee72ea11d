"""Bytes between peers: messages, frames, links; knows neither schedules nor models."""
