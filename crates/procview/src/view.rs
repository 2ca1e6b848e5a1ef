//! The views of all VEs of a node: what its things say right now.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cgroup::NodeReader;
use rustix::io::Errno;
use rustix::time::ClockId;
use ve::VeId;

use crate::control::Init;
use crate::facts::Tasks;
use crate::history::History;
use crate::host::{self, Host};
use crate::node::{ATTRIBUTES, CpuFile, HOST_FOLDER, Node, ProcFile, SHARED};
use crate::render;
use crate::source::{PRESSURES, ReadError, Source};
use crate::tasks::{Counter, TaskCount};

/// How long a text is given to whoever asks for the same. A change of a limit shows after this; a
/// VE that reads as fast as it can makes the server look at its groups this often.
const TEXT_LIFETIME: Duration = Duration::from_millis(20);

/// Open files of a VE whose text is kept, so that one who reads in pieces reads pieces of one text.
/// Others read pieces of what is so by then.
const HANDLES_MAX: usize = 32;

/// Text of a file, shared by all who have it open.
pub(crate) type Text = Arc<str>;

/// What the server knows of a VE.
#[derive(Debug, Default)]
pub(crate) struct VeView {
    pub(crate) init: Option<Init>,
    pub(crate) history: History,
    /// When tasks were counted last for the averages.
    pub(crate) sampled: Option<Instant>,
    pub(crate) tasks: Option<(Instant, TaskCount)>,
    /// Processor time at the last count, to see whether there is anything to be counted.
    pub(crate) worked_us: u64,
    pub(crate) stalled_us: u64,
    texts: BTreeMap<Node, (Instant, Text)>,
    handles: VecDeque<(u64, Text)>,
}

/// All views.
#[derive(Debug)]
pub(crate) struct Views {
    pub(crate) reader: NodeReader,
    pub(crate) counter: Counter,
    pub(crate) host: Host,
    pub(crate) ves: BTreeMap<VeId, VeView>,
    ticks_per_second: u64,
}

impl Views {
    pub(crate) fn new(reader: NodeReader) -> Self {
        Self {
            reader,
            counter: Counter::new(),
            host: Host::read(),
            ves: BTreeMap::new(),
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
        }
    }

    /// A VE has this init: what was known of it stays only if it was so before.
    pub(crate) fn begin(&mut self, init: Init) {
        if let Ok(ve) = VeId::new(init.id) {
            let view = self.ves.entry(ve).or_default();
            if view.init != Some(init) {
                *view = VeView {
                    init: Some(init),
                    ..VeView::default()
                };
            }
        }
    }

    /// What the next server is to know, in at most so many bytes: a line for each VE.
    pub(crate) fn history(&self, bytes_max: usize) -> String {
        let mut text = String::new();
        for view in self.ves.values() {
            let Some(init) = view.init else { continue };
            let (id, pid, start) = (init.id, init.pid, init.start_time);
            let line = format!("{id} {pid} {start} {}\n", view.history);
            if text.len() + line.len() > bytes_max {
                break;
            }
            text += &line;
        }
        text
    }

    /// Takes over what the server before knew.
    pub(crate) fn remember(&mut self, history: &str) {
        for (init, history) in history.lines().filter_map(remembered) {
            if let Ok(ve) = VeId::new(init.id) {
                let view = VeView {
                    init: Some(init),
                    history,
                    ..VeView::default()
                };
                self.ves.insert(ve, view);
            }
        }
    }

    /// The text of a file as it is now, or was a moment ago.
    ///
    /// # Errors
    /// `ENODEV` when the VE or the file is gone.
    pub(crate) fn text(&mut self, node: Node, now: Instant) -> Result<Text, Errno> {
        let ve = node.ve().ok_or(Errno::ISDIR)?;
        // A process that is younger than the text would have an age below zero.
        let keeps = !matches!(node, Node::Proc(_, ProcFile::Uptime));
        let known = self.ves.get(&ve).and_then(|view| view.texts.get(&node));
        if let Some((read, text)) = known.filter(|_| keeps)
            && now.saturating_duration_since(*read) < TEXT_LIFETIME
        {
            return Ok(Arc::clone(text));
        }
        self.host.refresh(now);
        let text: Text = self.render(node, now)?.into();
        // The machine's own texts are as quickly read again.
        if !matches!(node, Node::Shared(..) | Node::Attribute(..)) {
            let view = self.ves.entry(ve).or_default();
            view.texts.insert(node, (now, Arc::clone(&text)));
        }
        Ok(text)
    }

    /// The text that an open file shows from `offset` on: from its start what is so now, further on
    /// what it began with.
    ///
    /// # Errors
    /// As [`Views::text`].
    pub(crate) fn open_text(
        &mut self,
        node: Node,
        handle: u64,
        offset: u64,
        now: Instant,
    ) -> Result<Text, Errno> {
        let ve = node.ve().ok_or(Errno::ISDIR)?;
        let view = self.ves.entry(ve).or_default();
        let at = view.handles.iter().position(|(known, _)| *known == handle);
        if let Some((_, text)) = at.and_then(|at| view.handles.get(at))
            && offset > 0
        {
            return Ok(Arc::clone(text));
        }
        if let Some(at) = at {
            view.handles.remove(at);
        }
        let text = self.text(node, now)?;
        let view = self.ves.entry(ve).or_default();
        if view.handles.len() >= HANDLES_MAX {
            view.handles.pop_front();
        }
        view.handles.push_back((handle, Arc::clone(&text)));
        Ok(text)
    }

    /// An open file was closed.
    pub(crate) fn close(&mut self, node: Node, handle: u64) {
        if let Some(view) = node.ve().and_then(|ve| self.ves.get_mut(&ve)) {
            view.handles.retain(|(known, _)| *known != handle);
        }
    }

    fn render(&mut self, node: Node, now: Instant) -> Result<String, Errno> {
        let refused = |_: ReadError| Errno::IO;
        match node {
            Node::Proc(ve, file) => self.render_proc(ve, file, now).map_err(refused),
            Node::Pressure(ve, index) => {
                let name = PRESSURES.get(usize::from(index)).ok_or(Errno::NODEV)?;
                self.source(ve).pressure(name).map_err(refused)
            }
            Node::Cpu(ve, CpuFile::Online) => Ok(render::processor_list(&self.shown(ve))),
            Node::Cpu(ve, CpuFile::Offline) => {
                let shown = self.shown(ve);
                let all = host::text(&Path::new(HOST_FOLDER).join("possible")).unwrap_or_default();
                let mut all = kernel::proc::parse_set(all.trim()).unwrap_or_default();
                all.retain(|number| !shown.contains(number));
                Ok(render::processor_list(&all))
            }
            Node::Shared(_, index) => host_text(shared_path(index)),
            Node::Attribute(_, number, index) => host_text(attribute_path(number, index)),
            _ => Err(Errno::ISDIR),
        }
    }

    fn render_proc(&mut self, ve: VeId, file: ProcFile, now: Instant) -> Result<String, ReadError> {
        Ok(match file {
            ProcFile::Meminfo => render::meminfo(&self.source(ve).memory(&self.host)?),
            ProcFile::Swaps => render::swaps(&self.source(ve).memory(&self.host)?),
            ProcFile::Cpuinfo => {
                let shown = self.shown(ve);
                render::cpuinfo(&self.host.cpuinfo(), &shown)
            }
            ProcFile::Stat => {
                let shown = self.shown(ve);
                let (uptime, work) = self.account(ve, &shown)?;
                let history = self.view(ve).history;
                let time = history.processor_time(&work, self.ticks_per_second);
                let tasks = self.tasks(ve, now)?;
                render::stat(&shown, &time, boot_seconds(uptime), &tasks)
            }
            ProcFile::Uptime => {
                let shown = self.shown(ve);
                let (uptime, _) = self.account(ve, &shown)?;
                render::uptime(uptime, self.view(ve).history.idle())
            }
            ProcFile::Loadavg => {
                let tasks = self.tasks(ve, now)?;
                render::loadavg(&self.view(ve).history.averages, &tasks)
            }
            ProcFile::Vmstat => {
                let source = self.source(ve);
                let (memory, disks) = (source.memory(&self.host)?, source.disks()?);
                let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
                render::vmstat(&memory, &disks, page)
            }
            ProcFile::Diskstats => render::diskstats(&self.source(ve).disks()?),
        })
    }

    /// Accounts for a VE's time until now: how long it has run, and its work.
    pub(crate) fn account(
        &mut self,
        ve: VeId,
        shown: &[u32],
    ) -> Result<(Duration, crate::facts::Work), ReadError> {
        let work = self.source(ve).work()?;
        let uptime = self.uptime(ve);
        let processors = u64::try_from(shown.len()).unwrap_or(1);
        self.view(ve).history.advance(uptime, &work, processors);
        Ok((uptime, work))
    }

    /// The processors that a VE is shown. One that cannot be asked for has those of the machine.
    pub(crate) fn shown(&mut self, ve: VeId) -> Vec<u32> {
        let shown = self.source(ve).processors(&self.host);
        shown.unwrap_or_else(|_| self.host.online.clone())
    }

    fn tasks(&mut self, ve: VeId, now: Instant) -> Result<Tasks, ReadError> {
        let count = self.count(ve, now);
        let (total, most) = self.source(ve).tasks()?;
        Ok(Tasks {
            running: count.running,
            blocked: count.blocked,
            total,
            most,
        })
    }

    /// How long a VE has run, by its own clock: a VE that was woken counts on. One without a clock
    /// of its own has run for as long as its init; one that was not told of, as the machine.
    fn uptime(&self, ve: VeId) -> Duration {
        let now = since_boot();
        let Some(init) = self.ves.get(&ve).and_then(|view| view.init) else {
            return now;
        };
        match kernel::proc::boot_time_offset(init.pid) {
            Ok(ahead @ 1..) => now + Duration::from_nanos(ahead.unsigned_abs()),
            Ok(behind @ ..=-1) => now.saturating_sub(Duration::from_nanos(behind.unsigned_abs())),
            Ok(0) | Err(_) => {
                let ticks = init.start_time.saturating_mul(1_000);
                now.saturating_sub(Duration::from_millis(ticks / self.ticks_per_second))
            }
        }
    }

    pub(crate) fn source(&self, ve: VeId) -> Source<'_> {
        Source {
            reader: &self.reader,
            ve,
        }
    }

    pub(crate) fn view(&mut self, ve: VeId) -> &mut VeView {
        self.ves.entry(ve).or_default()
    }
}

pub(crate) fn shared_path(index: u16) -> Option<PathBuf> {
    Some(Path::new(HOST_FOLDER).join(SHARED.get(usize::from(index))?))
}

pub(crate) fn attribute_path(number: u16, index: u16) -> Option<PathBuf> {
    let attribute = ATTRIBUTES.get(usize::from(index))?;
    Some(Path::new(HOST_FOLDER).join(format!("cpu{number}/{attribute}")))
}

fn host_text(path: Option<PathBuf>) -> Result<String, Errno> {
    path.and_then(|path| host::text(&path)).ok_or(Errno::NODEV)
}

/// Time since the machine's boot, sleep included.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// When something began that has lasted so long, in seconds since 1970.
fn boot_seconds(uptime: Duration) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(uptime).as_secs()
}

fn remembered(line: &str) -> Option<(Init, History)> {
    let mut words = line.splitn(4, ' ');
    let init = Init {
        id: words.next()?.parse().ok()?,
        pid: words.next()?.parse().ok()?,
        start_time: words.next()?.parse().ok()?,
    };
    Some((init, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_history_is_passed_over() {
        let line = "101 4711 123 1 2 3 4 5 6 7 8";
        let (init, history) = remembered(line).unwrap();
        assert_eq!((init.id, init.pid, init.start_time), (101, 4_711, 123));
        assert_eq!(history.to_string(), "1 2 3 4 5 6 7 8");
        for line in ["", "101 4711", "101 4711 123 1 2", "a b c 1 2 3 4 5 6 7 8"] {
            assert_eq!(remembered(line), None, "{line}");
        }
    }
}
