//! `sa-web-app`, see [`sentiment_example::sa_web_app`]; `sa-web-app load ...` is [`sentiment_example::load`], so that
//! a pod of the web app can also play the users: its image holds one program.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use sentiment_example::load;
use sentiment_example::sa_web_app::{Args, SaWebApp};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|word| word == "load") {
        let args = load::Args::parse_from(["load".into()].into_iter().chain(words));
        return Ok(load::run(&args).await?);
    }
    let args = Args::parse();
    let program = SaWebApp::new(&args)?;
    sentiment_example::server::run(&args.server, move |request| Arc::clone(&program).answer(request)).await?;
    Ok(ExitCode::SUCCESS)
}
