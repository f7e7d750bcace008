//! `load`, see [`sentiment_example::load`].

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    Ok(sentiment_example::load::run(&sentiment_example::load::Args::parse()).await?)
}
