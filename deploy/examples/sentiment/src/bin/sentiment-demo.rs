//! `sentiment-demo`, see [`sentiment_example::demo`].

use std::process::ExitCode;

use clap::Parser;
use sentiment_example::demo::{Args, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run(&Args::parse()).await.unwrap_or_else(|error| {
        eprintln!("Error: {error}");
        ExitCode::FAILURE
    })
}
