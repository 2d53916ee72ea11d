"""What a run leaves in its folder, and pictures of schedules and runs."""
