//! The views of all VEs of a node: which things there are, and what they say right now.

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
use crate::node::{
    ATTRIBUTES, CPU_FILES, CPU_FOLDER, CpuFile, HOST_FOLDER, Node, PRESSURE_FOLDER, PROC_FILES,
    ProcFile, SHARED, is_folder, rows_in,
};
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
    host: Host,
    pub(crate) ves: BTreeMap<VeId, VeView>,
    ticks_per_second: u64,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: Node,
    pub(crate) name: String,
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

    /// Whether a thing is there now.
    pub(crate) fn exists(&mut self, node: Node) -> bool {
        let host_has = |path: PathBuf| std::fs::symlink_metadata(path).is_ok();
        match node {
            Node::Root => true,
            Node::Pressure(_, index) => {
                let name = PRESSURES
                    .get(usize::from(index))
                    .copied()
                    .unwrap_or_default();
                host_has(Path::new("/proc/pressure").join(name))
            }
            Node::Shared(_, index) => shared_path(index).is_some_and(host_has),
            Node::Processor(ve, number) => self.shown(ve).contains(&u32::from(number)),
            Node::Attribute(ve, number, index) => {
                self.exists(Node::Processor(ve, number))
                    && attribute_path(number, index).is_some_and(host_has)
            }
            Node::Folder(ve)
            | Node::Proc(ve, _)
            | Node::PressureFolder(ve)
            | Node::CpuFolder(ve)
            | Node::Cpu(ve, _) => self.reader.exists(ve),
        }
    }

    /// Whether a thing is a folder.
    pub(crate) fn is_folder(node: Node) -> bool {
        let in_table = |table: &'static [&'static str], index: u16| {
            table
                .get(usize::from(index))
                .is_some_and(|path| is_folder(table, path))
        };
        match node {
            Node::Root
            | Node::Folder(_)
            | Node::PressureFolder(_)
            | Node::CpuFolder(_)
            | Node::Processor(..) => true,
            Node::Shared(_, index) => in_table(SHARED, index),
            Node::Attribute(_, _, index) => in_table(ATTRIBUTES, index),
            Node::Proc(..) | Node::Pressure(..) | Node::Cpu(..) => false,
        }
    }

    /// Finds a name in a folder.
    pub(crate) fn find(&mut self, folder: Node, name: &[u8]) -> Option<Node> {
        let name = std::str::from_utf8(name).ok()?;
        let found = match folder {
            // Not by its list, which holds only VEs that were told of: at a launch the VE itself may
            // look before that.
            Node::Root => {
                let ve = name.parse().ok()?;
                (name == format!("{ve}")).then_some(Node::Folder(ve))?
            }
            Node::CpuFolder(ve) if name.strip_prefix("cpu").is_some() => {
                let number: u16 = name.strip_prefix("cpu")?.parse().ok()?;
                (name == format!("cpu{number}")).then_some(Node::Processor(ve, number))?
            }
            _ => {
                self.below(folder)
                    .into_iter()
                    .find(|entry| entry.name == name)?
                    .node
            }
        };
        self.exists(found).then_some(found)
    }

    /// What is in a folder now.
    pub(crate) fn list(&mut self, folder: Node) -> Vec<Entry> {
        let mut entries = self.below(folder);
        entries.retain(|entry| self.exists(entry.node));
        entries
    }

    /// What may be in a folder.
    fn below(&mut self, folder: Node) -> Vec<Entry> {
        let entry = |node: Node, name: &str| Entry {
            node,
            name: name.to_owned(),
        };
        let rows = |table, at: &str, node: &dyn Fn(u16) -> Node| -> Vec<Entry> {
            rows_in(table, at)
                .map(|(index, name)| entry(node(index), name))
                .collect()
        };
        match folder {
            Node::Root => {
                let ves = self.ves.keys();
                ves.map(|ve| entry(Node::Folder(*ve), &ve.to_string()))
                    .collect()
            }
            Node::Folder(ve) => PROC_FILES
                .iter()
                .map(|(file, name)| entry(Node::Proc(ve, *file), name))
                .chain([
                    entry(Node::PressureFolder(ve), PRESSURE_FOLDER),
                    entry(Node::CpuFolder(ve), CPU_FOLDER),
                ])
                .collect(),
            Node::PressureFolder(ve) => (0_u16..)
                .zip(PRESSURES)
                .map(|(index, name)| entry(Node::Pressure(ve, index), name))
                .collect(),
            Node::CpuFolder(ve) => {
                let shown = self.shown(ve);
                let numbers = shown
                    .iter()
                    .filter_map(|number| u16::try_from(*number).ok());
                let files = CPU_FILES.iter();
                files
                    .map(|(file, name)| entry(Node::Cpu(ve, *file), name))
                    .chain(rows(SHARED, "", &|index| Node::Shared(ve, index)))
                    .chain(numbers.map(|n| entry(Node::Processor(ve, n), &format!("cpu{n}"))))
                    .collect()
            }
            Node::Shared(ve, index) => {
                let at = SHARED.get(usize::from(index)).copied().unwrap_or_default();
                rows(SHARED, at, &|index| Node::Shared(ve, index))
            }
            Node::Processor(ve, number) => {
                rows(ATTRIBUTES, "", &|index| Node::Attribute(ve, number, index))
            }
            Node::Attribute(ve, number, index) => {
                let at = ATTRIBUTES
                    .get(usize::from(index))
                    .copied()
                    .unwrap_or_default();
                rows(ATTRIBUTES, at, &|index| Node::Attribute(ve, number, index))
            }
            Node::Proc(..) | Node::Pressure(..) | Node::Cpu(..) => Vec::new(),
        }
    }

    /// The text of a file as it is now, or was a moment ago.
    ///
    /// # Errors
    /// `ENODEV` when the VE or the file is gone.
    pub(crate) fn text(&mut self, node: Node, now: Instant) -> Result<Text, Errno> {
        let ve = node.ve().ok_or(Errno::ISDIR)?;
        let known = self.ves.get(&ve).and_then(|view| view.texts.get(&node));
        if let Some((read, text)) = known
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

    /// How long a VE's init has run: of one that was not told of, how long the machine has.
    fn uptime(&self, ve: VeId) -> Duration {
        let init = self.ves.get(&ve).and_then(|view| view.init);
        let ticks = init.map_or(0, |init| init.start_time);
        let begun = Duration::from_millis(ticks.saturating_mul(1_000) / self.ticks_per_second);
        since_boot().saturating_sub(begun)
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

fn shared_path(index: u16) -> Option<PathBuf> {
    Some(Path::new(HOST_FOLDER).join(SHARED.get(usize::from(index))?))
}

fn attribute_path(number: u16, index: u16) -> Option<PathBuf> {
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
