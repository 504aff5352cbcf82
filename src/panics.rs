//! Panics: each is a defect, and none of them is silent.
//!
//! A panic ends the task it happens in: one request, one connection, one tunnel. Whatever task it was,
//! the hook set here counts it and logs it with its backtrace. Tasks without which the gateway is
//! none are watched besides ([`crate::vital`]).

use std::any::Any;
use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::LazyLock;

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
    let backtrace = Backtrace::force_capture();
    tracing::error!(
        panic = message(panic.payload()),
        location = panic.location().map(ToString::to_string),
        thread = std::thread::current().name(),
        %backtrace,
        "panicked"
    );
}

/// What a panic says.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it says nothing")
}
