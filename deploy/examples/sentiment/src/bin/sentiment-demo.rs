//! `sentiment-demo`, see [`sentiment_example::demo`].

use std::process::ExitCode;

use clap::Parser;
use sentiment_example::demo::{Args, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    Ok(run(&Args::parse()).await?)
}
