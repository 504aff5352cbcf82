//! The standard metrics of the process, `process_*`.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, Metric, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

const CPU_SECONDS: &str = "process_cpu_seconds_total";

/// The crate's own collector, except for the CPU time: it divides ticks to whole seconds, of which a
/// rate over a minute shows next to nothing.
pub(super) struct Process(ProcessCollector);

impl Process {
    pub(super) fn new() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in &mut families {
            if family.name() == CPU_SECONDS {
                family.set_metric(vec![cpu_seconds()]);
            }
        }
        families
    }
}

/// Time of all threads, in user and in kernel mode.
fn cpu_seconds() -> Metric {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let mut counter = Counter::default();
    counter.set_value(spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown() -> f64 {
        let families = Process::new().collect();
        let cpu: Vec<_> = families
            .iter()
            .filter(|family| family.name() == CPU_SECONDS)
            .collect();
        assert_eq!(cpu.len(), 1);
        cpu[0].get_metric()[0].get_counter().get_value()
    }

    #[test]
    fn cpu_time_is_shown_to_less_than_a_second() {
        let before = shown();
        // Time of this thread, which is part of it.
        let spent = || {
            let spent = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(
                spent.tv_sec.cast_unsigned(),
                u32::try_from(spent.tv_nsec).unwrap(),
            )
        };
        let begun = spent();
        while spent() - begun < Duration::from_millis(100) {}
        let more = shown() - before;
        assert!(more >= 0.1 && more.fract() != 0.0, "{more}");
    }
}
