//! `sa-logic`, see [`sentiment_example::sa_logic`].

use std::sync::Arc;

use clap::Parser;
use sentiment_example::sa_logic::{Args, SaLogic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let program = SaLogic::new(&args);
    sentiment_example::server::run(&args.server, move |request| Arc::clone(&program).answer(request)).await?;
    Ok(())
}
