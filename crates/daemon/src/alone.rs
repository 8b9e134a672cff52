//! Tests that need a process and a network namespace of their own.

/// Set for the copy of a test that runs in the namespace.
const ALONE: &str = "CYGNET_TEST_ALONE";

/// What the copy says when `inside` has come to its end: libtest is content with a name that no test has.
const CAME_TO_ITS_END: &str = "cygnet: the copy of this test came to its end";

/// Runs the test of that name again, in a process and a network namespace of its own that
/// `setup` prepares, where it is `inside`. An unprivileged user may make a namespace on most systems;
/// where not, root has to run this.
#[expect(
    clippy::print_stdout,
    reason = "the copy tells the process that started it"
)]
pub(crate) fn alone(test: &str, setup: &str, inside: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        inside();
        println!("\n{CAME_TO_ITS_END}");
        return;
    }
    let output = std::process::Command::new("unshare")
        .args(["-rn", "sh", "-ec"])
        .arg(format!("{setup}; exec \"$0\" --exact --nocapture \"$1\""))
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(ALONE, "1")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("`unshare` of util-linux runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "failed in a namespace of its own, or none could be made: run this as root\n{stdout}{stderr}"
    );
    assert!(
        stdout.lines().any(|line| line == CAME_TO_ITS_END),
        "no test is named {test}, or it did not come to its end\n{stdout}{stderr}"
    );
}

#[test]
#[should_panic(expected = "no test is named of_that_name")]
fn a_name_that_no_test_has_is_an_error() {
    alone("of_that_name", ":", || ());
}
