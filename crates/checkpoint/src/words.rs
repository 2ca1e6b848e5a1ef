//! What CRIU said before it failed.

use std::fs;
use std::path::Path;

/// Most lines that are told: the first names the cause, the next who gave up because of it.
const LINES_MAX: usize = 2;
/// Longest line that is told.
const LINE_BYTES_MAX: usize = 300;

/// The first lines of a log in which CRIU complains, if it does.
pub(crate) fn of(log: &Path) -> Option<String> {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let complaints: Vec<&str> = text
        .lines()
        .filter_map(complaint)
        .filter(|line| !is_noise(line))
        .collect();
    let words = complaints[..complaints.len().min(LINES_MAX)].join("; ");
    (!words.is_empty()).then_some(words)
}

/// The part of a line after CRIU's time stamp and source line, when it is an error.
fn complaint(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Error (")?;
    let (_, words) = rest.split_once("): ")?;
    let end = words.len().min(LINE_BYTES_MAX);
    words.get(..end).or(Some(words))
}

/// Complaints that say nothing: it looks for programs that it can do without, raises limits that it
/// does not need, and ends by saying that it failed.
fn is_noise(words: &str) -> bool {
    let noise = [
        "tables",
        "RLIMIT_NOFILE for self",
        "FAILED.",
        "cgroupd: recv req",
    ];
    noise.iter().any(|part| words.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_went_wrong_and_not_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("dump.log");
        fs::write(
            &log,
            "(00.1) Warn  (criu/net.c:534): net: The eth0 veth\n\
             Error (criu/util.c:642): execvp(\"iptables-save\", ...) failed: No such file\n\
             (00.5) Error (criu/tty.c:410): tty: Found slave peer index 0 without master\n\
             (00.6) Error (criu/cr-dump.c:1975): Dumping FAILED.\n",
        )
        .unwrap();
        let told = of(&log).unwrap();
        assert_eq!(told, "tty: Found slave peer index 0 without master");
        fs::write(&log, "").unwrap();
        assert_eq!(of(&log), None);
    }
}
