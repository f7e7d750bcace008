//! The program: flags, logs, signals. The library does the rest.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};
use umbra_proxy::args::{Args, LogFormat};
use umbra_proxy::{LogFilter, Options, Proxy};

fn main() -> ExitCode {
    die_of_panics();
    match started() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Each message carries its cause already.
            eprintln!("umbra-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A panic on any thread ends the process, in every build: a worker that is gone would leave its connections hanging, and
/// the kernel goes on sending new ones while the others live.
fn die_of_panics() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}

fn started() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.cleanup {
        return clean(args.then_wait);
    }
    let log_filter = start_logging(&args.log, args.log_format)?;
    let options = args.options(Some(log_filter)).map_err(anyhow::Error::msg)?;
    // Traffic has threads of its own; this one pushes, answers and watches.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(options));
    // Whatever is left after a failure must not keep the process, and with it the nft table.
    runtime.shutdown_background();
    ended
}

/// Deletes what the kernel keeps of umbra on this node.
fn clean(then_wait: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anybody is told that it is done, and may end it.
        let mut terminate = signal(SignalKind::terminate())?;
        umbra_proxy::fallback::cleanup()?;
        eprintln!("umbra-proxy: no nft table of umbra is on this node now");
        if then_wait {
            terminate.recv().await;
        }
        Ok(())
    })
}

async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut proxy = Proxy::start(options).await?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        error = proxy.failed() => {
            // Leaving at once is the safe way: the kernel drops the table, and new connections go to others.
            return Err(error.into());
        }
    };
    tracing::info!(signal = name, "stopping");
    let cut = tokio::select! {
        stopped = proxy.stop() => stopped?,
        _ = interrupt.recv() => anyhow::bail!("interrupted while stopping"),
    };
    tracing::info!(cut, "stopped");
    Ok(())
}

/// Logs to standard error. Returns what changes the filter later.
fn start_logging(filter: &str, format: LogFormat) -> anyhow::Result<LogFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?}: {error}"))?;
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter);
    let text = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let layer = match format {
        LogFormat::Text => text.boxed(),
        LogFormat::Json => text.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    Ok(Arc::new(move |text: &str| {
        let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}
