"""Whether a run's times are emulated: which end-to-end tests run in real time too, and why others do not.

A test that runs in both says so itself, by Timing.REAL or a parameter of that type; test_timing.py holds the rest.
"""

from __future__ import annotations

from enum import Enum


class Timing(Enum):
    """How long a run's hops, tasks and syncs take; its value are the fields that say so."""

    EMULATED = ()
    """As long as the small schedule says."""
    REAL = ("emulation.enabled=false", "threads=1")
    """As long as they take; with one thread, as emulated nodes have, two runs of it round alike on any machine."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Of the configuration."""
        return self.value


class Why(Enum):
    """Why a test does not run in both."""

    FROM_OUTSIDE = "something from outside must come in the middle of it: in real time it would be over by then"
    EMULATION = "it looks at times that only emulation makes known before"
    NO_TRAINING = "it ends before an iteration, or what an iteration takes makes no difference to it"
    NEVER_EMULATED = "nothing in it is emulated anyway"


ALONE = {
    Why.FROM_OUTSIDE: {
        "test_faults": [
            "test_both_machines_go_on_without_the_node_that_was_killed",
            "test_the_majority_goes_on_and_who_is_cut_off_saves_ends_and_comes_back",
        ],
        "test_invitation": [
            "test_an_invitation_serves_later_too_and_at_any_machine",
            "test_a_node_that_its_launcher_has_given_up_can_be_had",
        ],
        "test_join": [
            "test_nodes_that_stay_away_are_brought_back_by_hand",
            "test_a_machine_that_is_gone_is_replaced_by_another_one",
            "test_a_node_that_is_there_is_not_replaced",
            "test_who_runs_something_else_is_told_so_at_once",
        ],
        "test_lost_stage": [
            "test_a_lost_stage_is_skipped",
            "test_a_node_that_is_left_alone_trains_its_stage",
            "test_a_lost_stage_is_restored",
            "test_the_first_stage_is_restored_from_a_checkpoint",
        ],
        "test_machines": [
            "test_a_node_that_comes_back_without_node_0_keeps_the_runs_time",
            "test_a_second_machine_with_the_same_nodes_is_refused_and_the_run_goes_on",
        ],
        # The nodes agree on the better plan while they train.
        "test_moves": ["test_nodes_change_stage"],
        "test_no_shared_disk": ["test_a_node_joins_a_run_that_was_resumed_over_machines_with_the_same_line"],
        "test_poison": ["test_a_run_told_to_stop_after_nothing_but_dropped_iterations_still_saves"],
        "test_rejoin": [
            "test_the_node_that_speaks_and_proposes_comes_back_and_another_dies_too_often",
            "test_a_node_that_can_not_be_started_again_stays_away",
            "test_the_donor_is_killed_and_the_joiner_finds_another",
            "test_nodes_of_two_launchers_come_back",
        ],
        "test_replan": ["test_a_better_plan_is_found_and_changed_to"],
        "test_replay": ["test_an_origin_dies_and_comes_back"],
        "test_stream": ["test_an_origin_dies_and_comes_back_and_no_text_is_lost_or_read_twice"],
    },
    Why.EMULATION: {
        "test_hangs": ["test_a_slow_node_is_told_and_stays"],
        "test_machines": ["test_machines_whose_clocks_differ_wait_for_no_clock_and_agree_on_the_figures"],
        "test_run": [
            "test_run_trains_and_leaves_summary_metrics_logs_and_pids",
            "test_emulated_messages_wait_for_each_other_as_the_schedule_expects",
            "test_other_samples_warn_and_simulate_again",
        ],
    },
    Why.NO_TRAINING: {
        "test_check": [
            "test_machines_that_check_at_once_reach_one_another",
            "test_a_run_that_waits_is_found_and_goes_on_as_if_nobody_had_asked",
        ],
        "test_full_disk": ["test_a_full_disk_is_said_in_one_line"],
        "test_invitation": [
            "test_one_line_is_enough",
            "test_what_is_wrong_with_an_invitation_is_said",
            "test_a_whole_run_invites_nobody",
            "test_a_machine_in_another_network_trains_soon_after_one_line",
            "test_the_line_for_others_is_gone_with_the_run",
        ],
        "test_join": ["test_what_is_missing_to_join_is_said"],
        "test_launch": [
            "test_what_is_known_before_the_start_is_refused_before_it",
            "test_a_child_that_fails_ends_the_imports_beside_it",
            "test_a_taken_port_is_named_with_its_field",
            "test_data_that_can_not_be_prepared",
            "test_a_child_that_fails_early_leaves_the_clean_up_to_the_launcher",
            "test_a_second_signal_while_stopping_is_no_error",
            "test_a_loss_while_starting_up_reaches_the_other_machine",
            "test_names_serve_in_bootstrap_and_a_lone_node_takes_all_cores",
            "test_ctrl_c_while_an_import_runs_code_gives_the_exit_code_too",
        ],
        "test_live_evaluation": ["test_a_checkpoint_that_is_not_there_is_one_line"],
        "test_machines": [
            "test_machines_that_differ_say_in_what_and_end_at_once",
            "test_two_launchers_do_not_run_the_same_nodes_in_a_folder",
        ],
        "test_no_shared_disk": [
            "test_without_a_stage_all_machines_say_which_and_nothing_is_left_running",
            "test_one_machine_serves_what_it_saved_and_the_other_gathers_a_whole_checkpoint",
        ],
        "test_run": ["test_bad_arguments_give_one_line_before_anything_starts"],
        "test_stream": ["test_a_stream_that_is_too_short_or_missing_is_one_line"],
    },
    Why.NEVER_EMULATED: {
        "test_live_evaluation": [
            "test_half_of_the_nodes_are_killed_and_the_evaluation_goes_on",
            "test_two_machines_evaluate_together",
            "test_nobody_evaluates_without_a_machine_that_was_asked_for_something_else",
            "test_a_killed_driver_ends_the_evaluation_on_every_machine",
        ],
        "test_profile": [
            "test_profile_writes_a_network_of_all_pairs",
            "test_a_search_on_the_profile_gives_a_run_without_emulation_its_expected_times",
            "test_profile_refuses_nodes_beyond_all",
            "test_turns_measure_every_pair_once_and_no_host_twice_at_a_time",
        ],
        "test_real_links": [
            "test_ctrl_c_removes_namespaces_and_ends_what_runs_in_them",
            "test_an_error_removes_namespaces",
            "test_without_iproute2_one_line_says_so",
        ],
    },
}
"""By reason and module: the tests that run in one of them alone, most of them emulated."""
