//! The program: flags, logs. The library does the rest.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use umbra_cli::args::{Cli, Command};

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_new(&cli.log).with_context(|| format!("--log {:?}", cli.log))?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).with_env_filter(filter).init();
    match cli.command {
        Command::Up(args) => {
            // Traffic has threads of its own; this one reads, compiles, pushes and prints.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(umbra_cli::up::run(args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Lint(args) => Ok(umbra_cli::lint::run(&args)?),
        Command::Explain(args) => {
            umbra_cli::explain::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
