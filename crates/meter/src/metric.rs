//! The list of what can be looked at over time and named in an alert rule.

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Events a second.
    PerSecond,
    /// Processors.
    Cores,
    /// A part of a whole, 0 to 1.
    Ratio,
    /// Things.
    Number,
}

impl Unit {
    /// The word for it in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes_per_second",
            Self::PerSecond => "per_second",
            Self::Cores => "cores",
            Self::Ratio => "ratio",
            Self::Number => "number",
        }
    }
}

macro_rules! metrics {
    ($($variant:ident $name:literal $unit:ident $help:literal)*) => {
        /// Something of a VE that changes.
        ///
        /// Its place is its column in the history's file: the list is only added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// All of them, in the order of their columns.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name, with its unit.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it is of.
            #[must_use]
            pub fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            /// What it tells, for people.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

metrics! {
    CpuCores "cpu_cores" Cores "processors in use"
    CpuThrottledRatio "cpu_throttled_ratio" Ratio "part of the periods with work in which `cpu.limit` ran out"
    CpuPressureRatio "cpu_pressure_ratio" Ratio "part of the time in which something waited for a processor"
    MemoryBytes "memory_bytes" Bytes "memory, with the page cache charged to it"
    MemoryUsedRatio "memory_used_ratio" Ratio "memory that cannot be taken back, of `memory.limit`"
    MemoryPressureRatio "memory_pressure_ratio" Ratio "part of the time in which something waited for memory"
    SwapBytes "swap_bytes" Bytes "swap"
    OomKillsPerSecond "oom_kills_per_second" PerSecond "processes that the kernel killed for memory"
    IoReadBytesPerSecond "io_read_bytes_per_second" BytesPerSecond "read from disks"
    IoWriteBytesPerSecond "io_write_bytes_per_second" BytesPerSecond "written to disks"
    IoReadOperationsPerSecond "io_read_operations_per_second" PerSecond "read operations"
    IoWriteOperationsPerSecond "io_write_operations_per_second" PerSecond "write operations"
    IoPressureRatio "io_pressure_ratio" Ratio "part of the time in which something waited for a disk"
    NetworkReceiveInsideBytesPerSecond "network_receive_inside_bytes_per_second" BytesPerSecond "received from the node's own network"
    NetworkReceiveOutsideBytesPerSecond "network_receive_outside_bytes_per_second" BytesPerSecond "received from outside"
    NetworkTransmitInsideBytesPerSecond "network_transmit_inside_bytes_per_second" BytesPerSecond "sent into the node's own network"
    NetworkTransmitOutsideBytesPerSecond "network_transmit_outside_bytes_per_second" BytesPerSecond "sent outside"
    NetworkReceivePacketsPerSecond "network_receive_packets_per_second" PerSecond "packets received"
    NetworkTransmitPacketsPerSecond "network_transmit_packets_per_second" PerSecond "packets sent"
    DiskBytes "disk_bytes" Bytes "space of the private area in the pool"
    DiskUsedRatio "disk_used_ratio" Ratio "the same, of `disk.limit`"
    Processes "processes" Number "processes and threads"
    ProcessesUsedRatio "processes_used_ratio" Ratio "the same, of `processes.limit`"
}

impl Metric {
    /// Finds the metric that a word names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Its column.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A value for each metric that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Values([Option<f64>; Metric::ALL.len()]);

impl Values {
    /// The value of a metric.
    #[must_use]
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0[metric.index()]
    }

    /// Sets the value of a metric.
    pub fn set(&mut self, metric: Metric, value: Option<f64>) {
        self.0[metric.index()] = value.filter(|value| value.is_finite());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_end_with_their_unit() {
        for (at, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric.index(), at);
            assert_eq!(Metric::from_name(metric.name()), Some(metric));
            let unit = metric.unit().as_str();
            assert!(
                metric.unit() == Unit::Number || metric.name().ends_with(unit),
                "{}",
                metric.name()
            );
        }
        assert_eq!(Metric::from_name("cpu"), None);
    }
}
