//! What the kernel says of a VE at one moment.

use cgroup::Usage;
use network::node::traffic::Traffic;
use ve::Limits;

macro_rules! counters {
    ($($variant:ident $name:literal)*) => {
        /// Something that the kernel counts up.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Counter {
            /// All of them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name, with its unit.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counters! {
    Cpu "cpu_microseconds"
    CpuUser "cpu_user_microseconds"
    CpuSystem "cpu_system_microseconds"
    CpuThrottled "cpu_throttled_microseconds"
    CpuPeriods "cpu_periods"
    CpuThrottledPeriods "cpu_throttled_periods"
    CpuPressure "cpu_pressure_microseconds"
    MemoryPressure "memory_pressure_microseconds"
    IoPressure "io_pressure_microseconds"
    OomKills "oom_kills"
    IoReadBytes "io_read_bytes"
    IoWriteBytes "io_write_bytes"
    IoReadOperations "io_read_operations"
    IoWriteOperations "io_write_operations"
    NetworkReceiveInsideBytes "network_receive_inside_bytes"
    NetworkReceiveOutsideBytes "network_receive_outside_bytes"
    NetworkTransmitInsideBytes "network_transmit_inside_bytes"
    NetworkTransmitOutsideBytes "network_transmit_outside_bytes"
    NetworkReceiveInsidePackets "network_receive_inside_packets"
    NetworkReceiveOutsidePackets "network_receive_outside_packets"
    NetworkTransmitInsidePackets "network_transmit_inside_packets"
    NetworkTransmitOutsidePackets "network_transmit_outside_packets"
}

impl Counter {
    /// Whether the packet filter keeps it, across starts of the VE; the others are of the VE's group.
    #[must_use]
    pub fn is_of_filter(self) -> bool {
        self >= Self::NetworkReceiveInsideBytes
    }

    /// Finds the counter that a word names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| counter.name() == name)
    }
}

/// A number for each counter that this host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([Option<u64>; Counter::ALL.len()]);

impl Counters {
    /// The number of a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> Option<u64> {
        self.0[counter as usize]
    }

    /// Sets the number of a counter.
    pub fn set(&mut self, counter: Counter, value: Option<u64>) {
        self.0[counter as usize] = value;
    }

    /// Forgets the counters that the VE's group keeps: the group is gone.
    pub fn forget_group(&mut self) {
        for counter in Counter::ALL.into_iter().filter(|c| !c.is_of_filter()) {
            self.set(counter, None);
        }
    }

    /// Forgets the counters that the packet filter keeps: its table is another.
    pub fn forget_filter(&mut self) {
        for counter in Counter::ALL.into_iter().filter(|c| c.is_of_filter()) {
            self.set(counter, None);
        }
    }

    /// Those that have a number.
    pub fn entries(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL
            .into_iter()
            .filter_map(|counter| Some((counter, self.get(counter)?)))
    }

    fn of(usage: Option<&Usage>, traffic: Option<&Traffic>) -> Self {
        let mut counters = Self::default();
        if let Some(usage) = usage {
            counters.set_usage(usage);
        }
        if let Some(traffic) = traffic {
            counters.set_traffic(traffic);
        }
        counters
    }

    fn set_usage(&mut self, usage: &Usage) {
        for (counter, value) in [
            (Counter::Cpu, usage.cpu_microseconds),
            (Counter::CpuUser, usage.cpu_user_microseconds),
            (Counter::CpuSystem, usage.cpu_system_microseconds),
            (Counter::CpuThrottled, usage.cpu_throttled_microseconds),
            (Counter::CpuPeriods, usage.cpu_periods),
            (Counter::CpuThrottledPeriods, usage.cpu_throttled_periods),
            (Counter::OomKills, usage.out_of_memory_kills),
            (Counter::IoReadBytes, usage.io_read_bytes),
            (Counter::IoWriteBytes, usage.io_write_bytes),
            (Counter::IoReadOperations, usage.io_read_operations),
            (Counter::IoWriteOperations, usage.io_write_operations),
        ] {
            self.set(counter, Some(value));
        }
        self.set(Counter::CpuPressure, usage.cpu_pressure_microseconds);
        self.set(Counter::MemoryPressure, usage.memory_pressure_microseconds);
        self.set(Counter::IoPressure, usage.io_pressure_microseconds);
    }

    fn set_traffic(&mut self, traffic: &Traffic) {
        for (bytes, packets, flow) in [
            (
                Counter::NetworkReceiveInsideBytes,
                Counter::NetworkReceiveInsidePackets,
                traffic.receive_inside,
            ),
            (
                Counter::NetworkReceiveOutsideBytes,
                Counter::NetworkReceiveOutsidePackets,
                traffic.receive_outside,
            ),
            (
                Counter::NetworkTransmitInsideBytes,
                Counter::NetworkTransmitInsidePackets,
                traffic.transmit_inside,
            ),
            (
                Counter::NetworkTransmitOutsideBytes,
                Counter::NetworkTransmitOutsidePackets,
                traffic.transmit_outside,
            ),
        ] {
            self.set(bytes, Some(flow.bytes));
            self.set(packets, Some(flow.packets));
        }
    }
}

/// The limits that a reading is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// `cpu.limit`.
    pub cpu_cores: Option<f64>,
    /// `memory.limit`, with what was given beyond it.
    pub memory_bytes: Option<u64>,
    /// What of that was given.
    pub memory_given_bytes: u64,
    /// `disk.limit`.
    pub disk_bytes: Option<u64>,
    /// `processes.limit`.
    pub processes: Option<u64>,
}

impl Bounds {
    /// Those of a VE's settings.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        Self {
            cpu_cores: limits
                .cpu
                .map(|cores| f64::from(cores.thousandths()) / 1_000.0),
            memory_bytes: limits.memory_now().map(ve::Bytes::get),
            memory_given_bytes: limits.memory_growth.given.map_or(0, ve::Bytes::get),
            disk_bytes: limits.disk.map(ve::Bytes::get),
            processes: limits.processes.map(u64::from),
        }
    }
}

/// What the kernel says of a VE at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When, in milliseconds of a clock that nobody sets.
    pub at_ms: u64,
    /// When, in seconds since 1970.
    pub time: u64,
    /// Which life of the VE's group the counters are of; nothing where it has none.
    pub run: Option<String>,
    /// When that life began, by the same clock as `at_ms`; nothing where it is not known.
    pub run_since_ms: Option<u64>,
    /// Which table of the packet filter they are of.
    pub filter_epoch: Option<String>,
    /// What was counted.
    pub counters: Counters,
    /// Memory, processes and the like; nothing where the VE has no processes.
    pub usage: Option<Usage>,
    /// Space of the private area.
    pub disk_bytes: Option<u64>,
    /// The VE's limits.
    pub bounds: Bounds,
}

impl Reading {
    /// Puts together what was read of a VE. `traffic` is its own of the table with `filter_epoch`; a VE that
    /// the table does not know exchanged nothing.
    #[must_use]
    pub fn new(
        at_ms: u64,
        time: u64,
        usage: Option<(String, Usage)>,
        filter: Option<(&str, Traffic)>,
        disk_bytes: Option<u64>,
        bounds: Bounds,
    ) -> Self {
        let (run, usage) = usage.unzip();
        let (filter_epoch, traffic) = filter.unzip();
        Self {
            at_ms,
            time,
            run,
            run_since_ms: None,
            filter_epoch: filter_epoch.map(str::to_owned),
            counters: Counters::of(usage.as_ref(), traffic.as_ref()),
            usage,
            disk_bytes,
            bounds,
        }
    }

    /// What the VE had beyond `memory.limit`, as long as it had processes.
    pub(crate) fn given_bytes(&self) -> u64 {
        match self.usage {
            Some(_) => self.bounds.memory_given_bytes,
            None => 0,
        }
    }

    /// The same, of a life that began then: what it used before anybody looked has its time, too.
    #[must_use]
    pub fn since(self, run_since_ms: Option<u64>) -> Self {
        Self {
            run_since_ms,
            ..self
        }
    }
}
