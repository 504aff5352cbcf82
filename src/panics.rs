//! Panics: each is a defect, and none of them is silent.
//!
//! A panic ends the task it happens in: one request, one connection, one tunnel. Whatever task it was,
//! the hook set here counts it and logs it, with a backtrace once a second. Tasks without which the gateway is
//! none are watched besides ([`crate::vital`]).

use std::any::Any;
use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

/// Counts every panic of this process: the hook is the process's, not one gateway's.
static COUNT: LazyLock<Result<IntCounter, prometheus::Error>> =
    LazyLock::new(|| IntCounter::new("outgate_panics_total", "Panics: defects of the gateway."));

/// The counter of panics, for a registry.
///
/// # Errors
/// When the metric has no valid name, which a test excludes.
pub(crate) fn counter() -> Result<IntCounter, prometheus::Error> {
    match &*COUNT {
        Ok(count) => Ok(count.clone()),
        Err(error) => Err(prometheus::Error::Msg(error.to_string())),
    }
}

/// Has every panic from now on counted and logged, in place of what the standard library prints.
pub fn report() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(count) = &*COUNT {
            count.inc();
        }
        log(panic);
    }));
}

fn log(panic: &PanicHookInfo<'_>) {
    // Whatever RUST_BACKTRACE says: a panic is rare, and may not come again.
    let backtrace = backtrace_is_due().then(Backtrace::force_capture);
    tracing::error!(
        panic = message(panic.payload()),
        location = panic.location().map(ToString::to_string),
        thread = std::thread::current().name(),
        backtrace = backtrace.as_ref().map(tracing::field::display),
        "panicked"
    );
}

/// Once a second: whoever finds a request that panics can send many, and threads take turns at a
/// backtrace, each of which is long.
fn backtrace_is_due() -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    // Who finds it locked is one of many.
    let Ok(mut last) = LAST.try_lock() else {
        return false;
    };
    let is_due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

/// What a panic says.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it says nothing")
}
