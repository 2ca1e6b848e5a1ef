//! `/proc/loadavg`.

use crate::facts::Tasks;
use crate::history::Averages;

/// `/proc/loadavg` (`proc_loadavg(5)`). The last field, the newest process's number, is the most
/// processes that the VE ever had at once: the kernel tells nobody outside of a pid namespace how
/// far its numbers went.
#[must_use]
pub fn loadavg(averages: &Averages, tasks: &Tasks) -> String {
    let [one, five, fifteen] = averages.hundredths().map(|hundredths| {
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        format!("{whole}.{rest:02}")
    });
    // The reader itself runs; while it is counted it waits for this text.
    let running = tasks.running + 1;
    let total = tasks.total.max(running);
    let newest = tasks.most.max(total);
    format!("{one} {five} {fifteen} {running}/{total} {newest}\n")
}
