"""Seeded bugs in `make run`."""

from tests.mutants.trial import Bug

_RUN = "tests/ops/test_run.py::test_"
_SERVERS = "tests/ops/test_servers.py::test_"
_LEADERS = "tests/ops/test_leaders.py::test_"
_ORPHANS = "tests/ops/test_orphans.py::test_"
_DEFINITION = "tests/ops/test_definition.py::test_"

BUGS = [
    Bug(
        "the files that initdb removes are reported as the cause of its failure",
        "ops/local/server.py",
        right=' and "removing" not in line',
        wrong="",
        test=_SERVERS + "the_cause_of_a_failed_start_is_the_last_error_and_not_what_follows_it",
    ),
    Bug(
        "a hint of initdb is reported as the cause of its failure",
        "ops/local/server.py",
        right="if _ERROR.search(line)",
        wrong="if line",
        test=_SERVERS + "a_failed_initdb_is_one_line_with_the_cause_and_the_log_of_its_whole_output",
    ),
    Bug(
        "the error about a file of Postgres that cannot be copied has no text",
        "ops/local/postgres_server.py",
        right="except shutil.Error as error:",
        wrong="except shutil.ReadError as error:",
        test=_SERVERS + "an_installation_that_cannot_be_copied_is_one_line",
    ),
    Bug(
        "Postgres starts on the data of another version",
        "ops/local/postgres_server.py",
        right="ours[1] != made_by",
        wrong="not ours[1]",
        test=_SERVERS + "data_of_another_version_is_refused_with_the_folder_and_the_remedies",
    ),
    Bug(
        "a character that is not in the encoding of the output ends the run",
        "ops/local/__main__.py",
        right="    prepare_streams()\n",
        wrong="",
        test=_RUN + "a_character_that_the_screen_lacks_does_not_end_the_run",
    ),
    Bug(
        "a run whose output is on a full disk ends with the status 0",
        "ops/local/command.py",
        right="lost.errno not in HUNG_UP",
        wrong="not lost.errno",
        test=_RUN + "a_screen_that_cannot_be_written_stops_the_run_and_only_a_closed_pipe_is_no_failure",
    ),
    Bug(
        "a limit of the machine ends the run with a traceback",
        "ops/local/command.py",
        right="except OSError as error:  # the machine",
        wrong="except ChildProcessError as error:  # the machine",
        test=_RUN + "too_low_a_limit_on_open_files_is_one_line",
    ),
    Bug(
        "the errors of a container's settings are on several lines",
        "ops/local/command.py",
        right='"; ".join(str(error).splitlines())',
        wrong="str(error)",
        test=_RUN + "two_bad_settings_of_a_container_are_one_line",
    ),
    Bug(
        "the end of any container counts as the loss of the lead",
        "ops/local/runner.py",
        right="        if container == SIDECAR:\n            self._board",
        wrong="        if container:\n            self._board",
        test=_RUN + "only_the_end_of_a_sidecar_ends_the_lead_of_its_task",
    ),
    Bug(
        "a process in another session outlives the run",
        "ops/local/orphans.py",
        right="prctl(pr_set_child_subreaper, 1,",
        wrong="prctl(pr_set_child_subreaper, 0,",
        test=_RUN + "a_process_in_another_session_that_outlives_its_parent_is_killed",
    ),
    Bug(
        "an orphan that ends stays a zombie until the end of the run",
        "ops/local/runner.py",
        right="                        group.create_task(orphans.keep_reaping()),\n",
        wrong="",
        test=_RUN + "no_orphan_that_ends_during_the_run_stays_a_zombie",
    ),
    Bug(
        "a server that ends is reaped as an orphan",
        "ops/local/server.py",
        right="        orphans.ours.add(self.process)\n",
        wrong="",
        test=_ORPHANS + "neither_a_server_nor_a_program_that_prepares_its_files_is_reaped",
    ),
    Bug(
        "a program that prepares the files of a server is reaped as an orphan",
        "ops/local/server.py",
        right="with orphans.starting():",
        wrong="if True:",
        test=_ORPHANS + "neither_a_server_nor_a_program_that_prepares_its_files_is_reaped",
    ),
    Bug(
        "a process of a container is reaped as an orphan",
        "ops/local/processes.py",
        right="            orphans.ours.add(child)\n",
        wrong="",
        test=_ORPHANS + "no_orphan_that_has_ended_stays_a_zombie_and_no_exit_code_is_lost[sleep 0.05]",
    ),
    Bug(
        "a process is reaped as an orphan before its start returns",
        "ops/local/orphans.py",
        right="while not _starts and (",
        wrong="while (",
        test=_ORPHANS + "a_process_that_starts_and_ends_during_a_start_is_not_reaped",
    ),
    Bug(
        "the report of a missing leader omits the sidecar's trouble",
        "ops/local/leaders.py",
        right='view.get("trouble")',
        wrong="None",
        test=_LEADERS + "the_report_of_a_missing_leader_contains_the_sidecar_s_trouble",
    ),
    Bug(
        "the name of a variable may contain an equals sign",
        "ops/local/definition.py",
        right='if "=" in name:',
        wrong='if "==" in name:',
        test=_DEFINITION + "an_error_names_its_field",
    ),
    Bug(
        "a command may contain a NUL character",
        "ops/local/definition.py",
        right='character == "\\0" or ',
        wrong="",
        test=_DEFINITION + "an_error_names_its_field",
    ),
]
"""All bugs of this module."""
