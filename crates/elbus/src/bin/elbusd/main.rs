//! `elbusd`, the stand-alone server: reads the command line, starts a broker, waits for a stop signal, closes in
//! good order. The command line is in `args.rs`.

mod allocator;
mod args;
mod log_line;
mod log_queue;
mod logging;
#[cfg_attr(windows, path = "console_events.rs")]
mod signals;

use args::Args;
use elbus::Broker;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Exit code for a command line that cannot be used.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    allocator::give_large_memory_back();
    let args = match Args::parse() {
        Ok(args) => args,
        Err(args::Stop::Shown) => return ExitCode::SUCCESS,
        Err(args::Stop::Wrong(error)) => return fail(USAGE, error),
    };
    let log = match logging::start(args.verbose) {
        Ok(log) => log,
        Err(error) => return fail(1, format_args!("cannot start threads: {error}")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.workers.into())
        .thread_name("elbusd")
        .on_thread_park(elbus::worker_rests)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(serve(args)),
        Err(error) => Err(format!("cannot start threads: {error}")),
    };
    log.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, error),
    }
}

async fn serve(args: Args) -> Result<(), String> {
    // Before anything can be connected to: a signal from now on means a drained end.
    let mut stop = signals::Stop::new().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let builder = Broker::builder().options(args.broker_options()).runtime(tokio::runtime::Handle::current());
    let broker = builder.build().map_err(|error| error.to_string())?;
    #[cfg(feature = "rpc")]
    broker.init_default_core_rpc().map_err(|error| error.to_string())?;
    for listener in args.listeners() {
        match broker.listen(listener).await {
            Ok(address) => {
                logging::warn_if_open(&address);
                tracing::info!("listening on {address}");
            }
            Err(error) => {
                broker.close().await;
                return Err(error.to_string());
            }
        }
    }
    let signal = stop.wait().await;
    tracing::info!("{signal}: closing");
    broker.close().await;
    Ok(())
}

/// One line on standard error.
fn fail(code: u8, error: impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "elbusd: {error}");
    ExitCode::from(code)
}
