//! Tests that run the program.

use example_support::testing::{Finished, Program, expect_in_order, messages, messages_of_success};

const PROGRAM: &str = env!("CARGO_BIN_EXE_device-fleet");

/// The last line of a successful run.
const PROMISES: &str =
    "✓ No call was misdirected or processed twice, and all devices and gateways came back";

/// The phases in the table, and the fewest calls that are lost in each.
fn phases(devices: usize, unlucky: usize) -> [(&'static str, usize); 8] {
    [
        ("each by its key", 0),
        ("all in turn", 0),
        ("one call to every tunnel", 0),
        ("devices killed", unlucky),
        ("gateway killed", devices),
        ("gateway replaced gracefully", 0),
        ("devices restarted gracefully", 0),
        ("each by its key, again", 0),
    ]
}

/// The numbers of a phase: calls made, answered, moved, failed.
fn row(lines: &[&str], phase: &str) -> [usize; 4] {
    let numbers = lines.iter().find_map(|line| {
        let words = line.strip_prefix(phase)?.split_whitespace();
        let numbers: Result<Vec<_>, _> = words.map(str::parse).collect();
        numbers.ok()?.try_into().ok()
    });
    numbers.unwrap_or_else(|| panic!("no row for {phase:?} in {lines:#?}"))
}

/// A short run, which succeeds.
fn play(args: &[&str]) -> Finished {
    Program::run(PROGRAM, args).expect_code(0)
}

/// The devices that were killed and drained.
fn unlucky(show: &Finished) -> Vec<String> {
    let lines = messages_of_success(show);
    let names = lines.iter().filter_map(|line| {
        let names = line
            .strip_prefix("Killing ")
            .or(line.strip_prefix("Draining "));
        names.filter(|names| names.starts_with("device-"))
    });
    names.map(str::to_owned).collect()
}

#[test]
fn only_calls_that_were_sent_and_lost_fail_and_only_where_something_was_killed() {
    let (devices, calls, unlucky) = (10, 3, 2);
    let show = play(&["--devices", "10", "--calls", "3"]);
    let lines = messages_of_success(&show);
    for (phase, lost) in phases(devices, unlucky) {
        let [made, answered, moved, failed] = row(&lines, phase);
        assert_eq!(made, answered + failed, "{phase}");
        assert!(made >= devices && moved <= made, "{phase}");
        if lost == 0 {
            assert_eq!(failed, 0, "{phase}");
        } else {
            assert!(failed >= lost, "{phase}: {failed}");
            let reason = format!("{phase}: {failed} failed: sent, and lost with the tunnel");
            assert!(lines.iter().any(|line| line.starts_with(&reason)));
        }
    }
    assert_eq!(
        row(&lines, "each by its key"),
        [devices * calls, devices * calls, 0, 0]
    );
    assert_eq!(lines.last(), Some(&PROMISES));
}

#[test]
fn it_says_in_order_what_happens() {
    let show = play(&["--devices", "5", "--calls", "1"]);
    let lines = messages_of_success(&show);
    expect_in_order(
        &lines,
        &[
            "--- 5 devices connect, with 2 tunnels each ---",
            "✓ 10 tunnels open",
            "--- Every device is called by its key ---",
            "✓ Each call was answered by the device that was meant",
            "--- All devices are called in turn, over one channel ---",
            "✓ Each device had 2 turns",
            "--- Every tunnel carries one call ---",
            "✓ Each tunnel led to the device whose key it has",
            "--- Devices lose their power during calls, and come back ---",
            "✓ All of them are back",
            "--- The gateway loses its power during calls, and comes back ---",
            "Killing the gateway",
            "✓ All devices have found it again",
            "--- The gateway is replaced gracefully, during calls ---",
            "Starting the next gateway, draining the last one",
            "✓ All devices have moved to the next one, and no call has noticed",
            "--- Devices are restarted gracefully, during calls ---",
            "✓ All of them are back, and no call has noticed",
            "--- Every device is called by its key ---",
            "✓ Each call was answered by the device that was meant",
            PROMISES,
        ],
    );
}

#[test]
fn the_seed_decides_who_has_bad_luck() {
    let with = |seed: &str| {
        let devices = ["--devices=20", "--calls=1", "--seed"];
        unlucky(&play(&[&devices[..], &[seed]].concat()))
    };
    let shows = [with("1"), with("1"), with("2")];
    assert_eq!(shows[0].len(), 2);
    assert_eq!(shows[0], shows[1]);
    assert_ne!(shows[0], shows[2]);
}

#[test]
fn a_fleet_of_one_is_a_fleet() {
    let show = play(&["--devices=1", "--calls=1"]);
    assert_eq!(unlucky(&show), ["device-1", "device-1"]);
    let lines = messages_of_success(&show);
    assert_eq!(row(&lines, "one call to every tunnel"), [2, 2, 0, 0]);
}

#[test]
fn nothing_is_shown_by_no_devices_or_no_calls_and_help_shows_the_flags() {
    for args in [["--devices", "0"], ["--calls", "0"]] {
        Program::run(PROGRAM, &args).expect_code(2);
    }
    let help = Program::run(PROGRAM, &["--help"]).expect_code(0);
    let help = help.stdout().concat();
    for word in ["--devices", "--calls", "--seed", "50"] {
        assert!(help.contains(word), "{help}");
    }
}

#[cfg(unix)]
#[test]
fn without_the_means_for_it_the_reason_is_said() {
    // Too few open files for the devices.
    let mut shell = std::process::Command::new("sh");
    let script = r#"ulimit -n 40; exec "$0" --devices 20"#;
    shell.args(["-c", script, PROGRAM]);
    let show = Program::spawn(shell).finish().expect_code(1);
    let errors = messages("ERROR", &show.stderr());
    let last = errors.last().expect("it has failed");
    assert!(last.starts_with("cannot start "), "{errors:#?}");
}
