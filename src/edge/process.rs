//! What this node costs, as the operating system counts it: processor, memory, written bytes, and
//! the space of its data folder.
//!
//! Read when somebody looks, never in between. What a system does not tell is left out.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::time::{ClockId, clock_gettime};

/// Bytes of one block, as `stat` counts them.
const BLOCK_BYTES: u64 = 512;

/// Tells the process's costs under the names that Prometheus clients share.
#[derive(Debug)]
pub(crate) struct ProcessCosts {
    /// The node's data folder, if it has one.
    data: Option<PathBuf>,
}

impl ProcessCosts {
    /// Costs of this process and of `data`.
    pub(crate) fn new(data: Option<PathBuf>) -> Self {
        Self { data }
    }
}

impl Collector for ProcessCosts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cpu = ConstCounter::new(cpu_seconds());
        let entry = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time of this process",
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(entry)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let kib = |key| field(&status, key).map(|kib| kib * 1024);
        let data = self.data.as_deref().map(allocated_bytes);
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use", kib("VmRSS:")),
            ("process_resident_memory_peak_bytes", "The most memory ever in use", kib("VmHWM:")),
            ("process_written_bytes", "Bytes sent to disks so far", field(&io, "write_bytes:")),
            ("roost_data_bytes", "Space that the data folder takes", data),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// The processor time of all threads so far, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The number behind a key in one of `/proc`'s lists.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The space that a folder takes. What vanishes meanwhile counts as nothing.
fn allocated_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let entries = entries.flatten().filter_map(|entry| Some((entry.metadata().ok()?, entry)));
    entries
        .map(|(metadata, entry)| match metadata.is_dir() {
            true => allocated_bytes(&entry.path()),
            false => metadata.blocks() * BLOCK_BYTES,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn costs_stand_under_the_shared_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), vec![1; 10_000]).unwrap();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCosts::new(Some(folder.path().into()))));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} is missing:\n{text}")).parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_resident_memory_peak_bytes") > 1e6);
        assert!(value("roost_data_bytes") >= 10_000.0);
    }

    #[test]
    fn a_field_is_found_by_its_key() {
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t 7 kB\n", "VmRSS:"), Some(7));
        assert_eq!(field("VmPeak:\t 9 kB\n", "VmRSS:"), None);
    }
}
