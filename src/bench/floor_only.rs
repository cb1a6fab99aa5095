//! `divvy bench floor`: what hand-written SQL needs on this server.

use super::Bench;
use super::figure::Series;
use super::floor::{self, B_BLOCK_PK, Drive, S_FUSED};
use super::report::{Counts, Report, grouped, rounds as plural};
use anyhow::Result;

/// What is drained.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// Splits of a round
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks: u64,
    /// Rounds of each in turn; figures are their medians
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Only this one
    #[arg(long, value_enum, value_name = "WAY")]
    pub only: Option<Way>,
}

/// A design and how it is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
pub enum Way {
    /// Single splits, batches of 100 on 2 connections
    #[value(name = "s_fused")]
    #[serde(rename = "s_fused")]
    SFused,
    /// Single splits, batches of 10 on 4 connections
    #[value(name = "s_fused_10")]
    #[serde(rename = "s_fused_10")]
    SFused10,
    /// Splits of one task, blocks of 100 on 2 connections
    #[value(name = "b_block_pk")]
    #[serde(rename = "b_block_pk")]
    BBlockPk,
}

/// Measures.
///
/// # Errors
/// When a step fails.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let Options { tasks, rounds, only } = *options;
    let ways = [
        (Way::SFused, "s_fused", S_FUSED, Drive::WIDE),
        (Way::SFused10, "s_fused_10", S_FUSED, Drive::beside(10)),
        (Way::BBlockPk, "b_block_pk", B_BLOCK_PK, Drive::WIDE),
    ];
    let ways: Vec<_> = ways.into_iter().filter(|(way, ..)| only.is_none_or(|only| only == *way)).collect();
    let mut series: Vec<Series> =
        ways.iter().map(|(_, key, design, drive)| Series::new(*key, drive.name(design))).collect();
    let mut counts = Counts::default();
    for _ in 0..rounds {
        for ((_, _, design, drive), series) in ways.iter().zip(&mut series) {
            let (figure, counted) = floor::counted(bench, *design, *drive, tasks).await?;
            series.figures.push(figure);
            counts += counted;
        }
    }
    let title = format!("floor: {} splits by hand-written SQL, {}, medians", grouped(tasks), plural(rounds));
    let mut report = Report::new("floor", title, options)?;
    series.iter().for_each(|series| report.series(series));
    report.note("handler calls: splits that its connections completed".to_owned());
    report.counts(counts);
    Ok(report)
}
