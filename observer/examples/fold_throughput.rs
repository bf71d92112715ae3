//! How fast a recorded session folds: `cargo run --release --example fold_throughput SESSION.sqlite`. Knows sessions and the model.

use std::{path::Path, time::Instant};

use anyhow::Context as _;
use observer::{fold, session::Session, source::probe};

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("usage: fold_throughput SESSION.sqlite")?;
    let session = Session::open(Path::new(&path))?;
    let start = Instant::now();
    let model = fold::fold(&session, &fold::without_files(), None)?;
    let took = start.elapsed().as_secs_f64();
    let totals = model.amqp.lives.totals;
    println!(
        "{} events, {} messages in {took:.3} s: {:.0} messages/s, peak {} KiB\n{totals:?}",
        model.events(),
        totals.messages,
        totals.messages as f64 / took,
        probe::own_peak_rss_bytes() / 1024
    );
    Ok(())
}
