//! A program for which somebody keeps this machine's clock right, or nobody does, however that is here: every machine of
//! a lab shares the host's clock.

use super::Result;
use std::fs;
use std::path::Path;

/// What a program finds when it asks the kernel (adjtimex(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Somebody does: the call succeeds, and says nothing else.
    Right,
    /// Nobody does: the call is refused, as where it may not be asked.
    ByNobody,
}

/// The words before a line of shell that runs a program: it, and whatever it starts, finds the clock so. What they need
/// is written to the directory.
///
/// # Errors
/// It cannot be written.
pub fn before(directory: &Path, kept: Kept) -> Result<String> {
    let script = directory.join("kept-clock.py");
    fs::write(&script, SCRIPT)?;
    let errno = match kept {
        Kept::Right => 0,
        Kept::ByNobody => 1,
    };
    Ok(format!("python3 '{}' {errno}", script.display()))
}

/// A filter of seccomp(2) that has the kernel answer both calls for the C library's `adjtimex` with a number of errno;
/// with 0 they succeed, and what they were to fill in is left as it was.
const SCRIPT: &str = r#"import ctypes, os, struct, sys

LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
adjtimex, clock_adjtime = {"x86_64": (159, 305), "aarch64": (171, 266)}[os.uname().machine]
steps = [
    (LOAD, 0, 0, 0),
    (IF_EQUAL, 2, 0, adjtimex),
    (IF_EQUAL, 1, 0, clock_adjtime),
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, ERRNO | int(sys.argv[1])),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


program = Program(len(steps), ctypes.addressof(code))
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
if ctypes.CDLL(None).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
    sys.exit("seccomp is refused")
os.execvp(sys.argv[2], sys.argv[2:])
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Exec;

    /// What a program is told: the result of the call, and whether the clock is said not to be kept.
    const ASK: &str = "import ctypes; t = (ctypes.c_char * 256)(); \
        print(ctypes.CDLL(None).adjtimex(t), int.from_bytes(t[40:44], 'little') & 0x40)";

    #[test]
    fn a_program_finds_the_clock_kept_or_not() {
        // Without a privilege no such filter is taken.
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            return;
        }
        let name = format!("cygnet-kept-clock-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let told = |kept| {
            let before = before(&directory, kept).unwrap();
            Exec::shell(&format!("{before} python3 -c \"{ASK}\"")).run()
        };
        let (right, nobody) = (told(Kept::Right), told(Kept::ByNobody));
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(right.unwrap().trim(), "0 0");
        assert_eq!(nobody.unwrap().trim(), "-1 0");
    }
}
