"""What the user reads of nodes that are lost, and what the summary counts of them."""

from __future__ import annotations

from skippipe.cli.losses import Losses
from skippipe.report.metrics import IterationMetrics, SurvivalSummary
from skippipe.runtime.events import FirstRestored, NodeBack, NodeSlow, ViewBegun


def metrics(iteration: int, step_s: float) -> IterationMetrics:
    return IterationMetrics(iteration, 5.0, 1.0, step_s - 1, step_s, 100, 10.0, 1000)


def test_losses_are_told_with_their_cause_their_heirs_and_what_they_cost() -> None:
    losses = Losses(47.42, range(20))
    assert losses.step(metrics(6, 48.0)) is None
    losses.lost(12, "killed by SIGKILL")
    # Node 3 was lost on another machine, whose launcher knows why.
    event = ViewBegun(1, 7, (3, 12), (), (), "takeover", (13, 16), 6, (5, 2, 2), (5, 3, 3), 61.84)
    assert losses.view(event) == (
        "nodes 3 and 12 lost in iteration 7 (12 killed by SIGKILL): nodes 13 and 16 took over 6 microbatches;"
        " stage 1 goes on with 2 of 3, stage 2 goes on with 2 of 3; next expected 61.8 s"
    )
    assert losses.step(metrics(7, 60.0)) == "iteration 7 took 60.0 s (expected 47.4 s)"
    assert losses.step(metrics(8, 62.0)) is None
    again = ViewBegun(2, 9, (16,), (), (), "takeover", (13,), 5, (5, 1, 2), (5, 2, 2), 90.0)
    said = losses.view(again)
    assert said is not None
    assert said.startswith("node 16 lost in iteration 9: node 13 took over 5 microbatches;")
    assert losses.step(metrics(9, 81.84)) == "iteration 9 took 81.8 s (expected 61.8 s)"
    seconds_lost = losses.summary.seconds_lost
    assert abs(seconds_lost - (60.0 - 47.42 + 20.0)) < 1e-9
    assert losses.summary == SurvivalSummary(3, 3, 0, 11, 0, seconds_lost)


def test_one_loss_is_told_in_one_line_and_its_step_in_another() -> None:
    losses = Losses(47.42, range(20))
    losses.lost(12, "killed by SIGKILL")
    said = losses.view(ViewBegun(1, 7, (12,), (), (), "takeover", (13, 16), 6, (4, 3, 3, 2), (4, 3, 3, 3), 49.0))
    assert said == (
        "node 12 lost in iteration 7 (killed by SIGKILL): nodes 13 and 16 took over 6 microbatches;"
        " stage 3 goes on with 2 of 3; next expected 49.0 s"
    )
    assert losses.step(metrics(7, 52.1)) == "iteration 7 took 52.1 s (expected 47.4 s)"


def test_who_comes_back_is_told_with_what_it_got_and_counted() -> None:
    losses = Losses(47.42, range(20))
    losses.lost(12, "killed by SIGKILL")
    losses.view(ViewBegun(1, 7, (12,), (), (), "takeover", (13,), 6, (5, 2), (5, 3), 61.84))
    assert losses.view(ViewBegun(2, 9, (), (12,), (), "boundary", (), 0, (5, 3), (5, 2), 47.42)) is None
    back = losses.back(NodeBack(12, 9, 3, "of node 16", 600_000, 0.1))
    assert back == "node 12 back in iteration 9 with stage 3 of node 16 (0.6 MB in 0.1 s)"
    assert (losses.summary.nodes_joined, losses.expected_step_s) == (1, 47.42)
    # Its new process lives, but the others go on without it.
    said = losses.view(ViewBegun(3, 9, (12,), (), (), "takeover", (13,), 6, (5, 2), (5, 3), 61.84))
    assert said is not None
    assert said.startswith("node 12 lost in iteration 9:")
    losses.lost(12, "killed by SIGKILL")
    assert losses.stays_away(12) == (
        "node 12 (killed by SIGKILL) has ended 2 times and stays away (peers.restart); --join brings it back"
    )


def test_a_joiner_that_was_passed_over_has_neither_joined_nor_been_lost() -> None:
    lost = ViewBegun(1, 7, (12,), (), (), "takeover", (13,), 6, (5, 2), (5, 3), 61.84)
    joined = ViewBegun(2, 9, (), (12,), (), "boundary", (), 0, (5, 3), (5, 2), 47.42)
    both = ViewBegun(3, 9, (5, 12), (), (), "takeover", (13,), 6, (4, 2), (5, 3), 61.84)
    told, silent, back = (Losses(47.42, range(20)) for _ in range(3))
    for losses, begun in ((told, (lost, joined, both)), (silent, (lost, both)), (back, (lost, joined))):
        lines = [losses.view(event) for event in begun]
        if begun[-1] is both:
            assert lines[-1] == (
                "node 5 lost in iteration 9, iteration 9 goes on without node 12, not there yet: node 13 took over 6"
                " microbatches; stage 0 goes on with 4 of 5, stage 1 goes on with 2 of 3; next expected 61.8 s"
            )
    # Node 12 had not got its state yet, whether anybody had begun that view or not.
    for losses in (told, silent):
        assert (losses.summary.nodes_lost, losses.summary.nodes_joined) == (2, 0)
    # Here it had.
    back.back(NodeBack(12, 9, 1, "of node 13", 600_000, 0.1))
    back.view(both)
    assert (back.summary.nodes_lost, back.summary.nodes_joined) == (3, 1)
    # With another view it comes back, and stays for an iteration.
    for losses in (told, silent):
        losses.view(ViewBegun(4, 10, (), (12,), (), "boundary", (), 0, (4, 3), (4, 2), 50.0))
        losses.lost(12, "killed by SIGKILL")
        said = losses.view(ViewBegun(5, 10, (12,), (), (), "redo", (), 0, (4, 2), (4, 3), 61.84))
        assert said == (
            "iteration 10 goes on without node 12, not there yet (killed by SIGKILL): it is begun again;"
            " stage 1 goes on with 2 of 3; next expected 61.8 s"
        )
        assert (losses.summary.nodes_lost, losses.summary.nodes_joined) == (2, 0)
        losses.view(ViewBegun(6, 11, (), (12,), (), "boundary", (), 0, (4, 3), (4, 2), 50.0))
        losses.view(ViewBegun(7, 12, (12,), (), (), "takeover", (13,), 6, (4, 2), (4, 3), 61.84))
        assert (losses.summary.nodes_lost, losses.summary.nodes_joined) == (3, 1)


def test_what_is_begun_again_says_how_many_microbatches_go_elsewhere() -> None:
    losses = Losses(47.42, range(20))
    losses.lost(12, "killed by SIGKILL")
    said = losses.view(ViewBegun(1, 7, (12,), (), (), "redo", (), 0, (5, 1), (5, 2), 90.0, rerouted=3))
    assert said == (
        "node 12 lost in iteration 7 (killed by SIGKILL): it is begun again, 3 microbatches through other stages;"
        " stage 1 goes on with 1 of 2; next expected 90.0 s"
    )


def test_a_boundary_is_told_as_a_better_plan_if_it_is_one() -> None:
    losses = Losses(47.42, range(20))
    # Who was to join is gone before: nothing changes.
    assert losses.view(ViewBegun(1, 7, (), (), (), "boundary", (), 0, (5, 3), (5, 3), 47.42)) is None
    moved = losses.view(ViewBegun(2, 9, (), (), (4,), "boundary", (), 0, (5, 3), (4, 4), 50.0))
    assert moved == "view 2 from iteration 9: node 4 changes stage; next expected 50.0 s"
    better = losses.view(ViewBegun(3, 12, (), (), (4,), "boundary", (), 0, (5, 3), (4, 4), 45.0))
    assert better == ("a better plan, view 3 from iteration 12: node 4 changes stage; next expected 45.0 s, not 50.0 s")


def test_a_launcher_that_joins_loses_no_node_that_is_not_there_yet() -> None:
    losses = Losses(47.42, range(12, 14), joins=True)
    losses.view(ViewBegun(3, 9, (5, 12), (13,), (), "takeover", (), 6, (4, 2), (5, 3), 61.84))
    assert (losses.summary.nodes_lost, losses.summary.nodes_joined) == (1, 1)


def test_who_joins_under_another_launcher_is_told() -> None:
    losses = Losses(47.42, range(10))
    joined = ViewBegun(2, 9, (), (3, 12), (), "boundary", (), 0, (5, 3), (5, 2), 47.42)
    assert losses.view(joined) == "view 2 from iteration 9: node 12 of another launcher joins; next expected 47.4 s"
    losses.lost(3, "killed by SIGKILL")
    losses.stays_away(3)
    said = losses.view(joined)
    assert said == "view 2 from iteration 9: nodes 3 and 12 of another launcher join; next expected 47.4 s"


def test_a_view_without_losses_says_so() -> None:
    losses = Losses(47.42, range(20))
    said = losses.view(ViewBegun(1, 7, (), (), (), "takeover", (), 0, (5, 3), (5, 3), 47.42))
    assert said == "view 1 from iteration 7: nobody was lost after all"
    assert losses.summary.nodes_lost == 0


def test_a_better_plan_and_a_redone_iteration_are_told() -> None:
    losses = Losses(50.0, range(20))
    said = losses.view(ViewBegun(3, 8, (), (), (4, 7), "boundary", (), 0, (5, 2), (5, 2), 44.0))
    assert (
        said == "a better plan, view 3 from iteration 8: nodes 4 and 7 change stage; next expected 44.0 s, not 50.0 s"
    )
    said = losses.view(ViewBegun(4, 8, (6,), (), (), "redo", (), 0, (4, 2), (5, 2), 52.0))
    assert said == ("node 6 lost in iteration 8: it is begun again; stage 0 goes on with 4 of 5; next expected 52.0 s")
    assert losses.summary.iterations_redone == 1
    assert losses.step(metrics(8, 90.0)) == "iteration 8 took 90.0 s (expected 44.0 s)"
    said = losses.view(ViewBegun(5, 9, (), (6,), (2,), "boundary", (), 0, (5, 2), (4, 2), 47.0))
    assert said == "view 5 from iteration 9: node 2 changes stage; next expected 47.0 s"


def test_who_takes_the_first_stage_is_told() -> None:
    said = Losses(50.0, range(20)).restored(FirstRestored(4, 7, "of the checkpoint of iteration 5"))
    assert said == "node 4 changes to stage 0 in iteration 7, of the checkpoint of iteration 5"


def test_a_slow_node_is_told() -> None:
    losses = Losses(50.0, range(20))
    said = losses.slow(NodeSlow(12, 7, 3.14))
    assert said == "node 12 is slow from iteration 7 on: its tasks take 3.1 times as long as usual"
    assert losses.slow(NodeSlow(12, 9, 1.1)) == "node 12 is as fast as usual again from iteration 9 on"
