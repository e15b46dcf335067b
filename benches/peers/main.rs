//! Compares this library with its peers, on real servers: `cargo bench` prints the table, and
//! writes it to `benches/RESULTS.md` and `benches/results.svg`.
//!
//! Absolute figures say little, because other work on the machine changes them from one second to
//! the next. So the contenders take turns, and only the ratio within one turn counts: its median,
//! and its extremes, which show how reliable it is.
//!
//! - [`contenders`]: each library, acquiring free locks; [`measure`] runs them in rounds;
//! - [`waiters`]: each library, waiting for a held lock; [`contention`] runs them, in one process
//!   and in two;
//! - [`counting`]: commands, memory and CPU time; [`embedded`]: measurements without a server;
//! - [`census`]: checks that no lock is left behind;
//! - [`placement`]: the cores that client and server run on;
//! - [`findings`], [`report`]: the table.
//!
//! ```text
//! cargo bench                               everything; nothing is written if a part is void
//! cargo bench -- --rows waiting,contention  only some parts, and nothing is written
//! cargo bench -- --quick                    fewer and shorter rounds, and nothing is written
//! cargo bench -- --split                    the server on a separate core (Linux)
//! ```
#![forbid(unsafe_code)]

mod census;
mod contenders;
mod contention;
mod counting;
mod embedded;
mod findings;
mod measure;
mod placement;
mod report;
mod waiters;

use std::{env, fs, path::Path, process::ExitCode, time::Duration};

use lock_tests::RedisServer;

use crate::{
    census::Census,
    contenders::{Bare, Distkit, Failure, Ours, Rslock},
    contention::{Contention, Outcome},
    findings::{Finding, Goal, figure, seconds},
    measure::{Load, Rival, Row, Spread, rival},
    placement::Split,
};

/// Threads of the runtime that the contenders share.
const WORKERS: usize = 2;

/// The lease of every lock. It is longer than any round, so no lock expires.
const LEASE: Duration = Duration::from_secs(10);

/// The parts of the benchmark, by the names that `--rows` takes.
const PARTS: [&str; 5] = ["embedded", "throughput", "contention", "waiting", "debounce"];

struct Options {
    rows: Option<Vec<String>>,
    quick: bool,
    split: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = |workers| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
    };
    if arguments.first().is_some_and(|first| first == "--worker") {
        return runtime(1)?.block_on(contention::work(&arguments[1..]));
    }
    let options = Options::parse(&arguments)?;
    // Before the first thread starts, because threads inherit the cores.
    let split = options.split.then(Split::begin).transpose()?;
    let (mut findings, mut failures) = (Vec::new(), Vec::new());
    if options.wants("embedded") {
        keep(embedded_part(&options), &mut findings, &mut failures);
    }
    let runtime = runtime(WORKERS)?;
    let machine = runtime.block_on(report::machine(split.is_some(), WORKERS));
    println!("\n{machine}\n\n{}", report::HEAD);
    for finding in &findings {
        println!("{}", report::line(finding));
    }
    // In tasks: the thread of `block_on` would add a thread to switch to.
    for part in &PARTS[1..] {
        if !options.wants(part) {
            continue;
        }
        let already = findings.len();
        let quick = options.quick;
        let server = RedisServer::start();
        if let Some(split) = &split {
            split.place(&server)?;
        }
        let found = match *part {
            "throughput" => runtime.block_on(runtime.spawn(throughput(server, quick)))?,
            "contention" => runtime.block_on(runtime.spawn(contention_part(server, quick)))?,
            "waiting" => runtime.block_on(runtime.spawn(waiting(quick)))?,
            _ => runtime.block_on(runtime.spawn(debounce()))?,
        };
        keep(found, &mut findings, &mut failures);
        for finding in &findings[already..] {
            println!("{}", report::line(finding));
        }
    }
    let whole = options.rows.is_none() && !options.quick && !options.split;
    if whole && failures.is_empty() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::write(here.join("RESULTS.md"), report::markdown(&machine, &findings, &failures))?;
        fs::write(here.join("results.svg"), report::picture(&findings))?;
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("void: {}", failures.join("; ")).into()) }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self { rows: None, quick: false, split: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--split" => options.split = true,
                "--rows" => {
                    let rows = arguments.next().ok_or("`--rows` needs names")?;
                    let rows: Vec<_> = rows.split(',').map(str::to_owned).collect();
                    if let Some(unknown) = rows.iter().find(|row| !PARTS.contains(&row.as_str())) {
                        return Err(format!("{unknown} is none of {}", PARTS.join(", ")).into());
                    }
                    options.rows = Some(rows);
                }
                // Cargo adds this.
                "--bench" => {}
                other => return Err(format!("{other} is not an option").into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.iter().any(|row| row == part))
    }
}

fn keep(
    found: Result<Vec<Finding>, Failure>,
    findings: &mut Vec<Finding>,
    failures: &mut Vec<String>,
) {
    match found {
        Ok(found) => findings.extend(found),
        Err(failure) => failures.push(failure.to_string()),
    }
}

async fn throughput(server: RedisServer, quick: bool) -> Result<Vec<Finding>, Failure> {
    let loads = [
        (Load { tasks: 1, cycles: 500 }, [Some(1.5), None, None, None]),
        (Load { tasks: 64, cycles: 100 }, [Some(2.0), Some(2.5), None, Some(1.5)]),
        (Load { tasks: 512, cycles: 25 }, [Some(3.0), None, None, None]),
    ];
    let census = Census::of(&server).await;
    let mut findings = Vec::new();
    for (load, goals) in loads {
        let ids = load.ids();
        let rivals: Vec<Rival> = vec![
            rival(Ours::connect(&server, ids.clone()).await?),
            rival(Rslock::connect(&server, ids.clone())),
            rival(Distkit::<true>::connect(&server, &ids, census.clone()).await?),
            rival(Distkit::<false>::connect(&server, &ids, census.clone()).await?),
            rival(Bare::connect(&server, ids).await?),
        ];
        let row = Row::measure(load, &rivals, &census, quick).await?;
        let tasks = if load.tasks == 1 { "1 task" } else { &format!("{} tasks", load.tasks) };
        let rate = |place| format!("{}/s", figure(row.rate(place).median));
        for (place, goal) in (1..rivals.len()).zip(goals) {
            findings.push(Finding::lead(
                format!("acquire + release, {tasks}, distinct ids"),
                rivals[place].name(),
                (rate(0), rate(place)),
                row.lead_over(place),
                goal,
            ));
        }
    }
    Ok(findings)
}

async fn contention_part(server: RedisServer, quick: bool) -> Result<Vec<Finding>, Failure> {
    let names = contention::names();
    let (rounds, time) = if quick { (2, 1) } else { (5, 2) };
    let time = Duration::from_secs(time);
    let inside = Contention { processes: 1, tasks: 16, hold: Duration::ZERO };
    let inside = inside.measure(&names, &server.url(), rounds, time).await?;
    let between = Contention { processes: 2, tasks: 8, hold: Duration::from_millis(1) };
    let between = between.measure(&names, &server.url(), rounds, time).await?;
    let mut findings = Vec::new();
    for place in 1..names.len() {
        let goal = (place == 1).then_some(100.0);
        let what = "16 tasks, one id, no hold: acquisitions";
        findings.push(compared(what, names[place], &inside[0], &inside[place], |o| o.rate, goal));
    }
    for place in 1..names.len() {
        let goal = (place == 1).then_some(2.0);
        let what = "2 processes × 8 tasks, 1 ms hold: acquisitions";
        findings.push(compared(what, names[place], &between[0], &between[place], |o| o.rate, goal));
        let goal = (place == 1).then_some(10.0);
        let what = "the same: p99 wait, how many times shorter";
        let shorter = |o: &Outcome| 1.0 / o.worst_wait;
        let mut finding = compared(what, names[place], &between[0], &between[place], shorter, goal);
        let wait = |outcomes: &[Outcome]| {
            let waits = |of: fn(&Outcome) -> f64| Spread::of(outcomes.iter().map(of)).median;
            let (median, worst) = (waits(|o| o.median_wait), waits(|o| o.worst_wait));
            format!("{} (p50 {})", seconds(worst), seconds(median))
        };
        (finding.ours, finding.theirs) = (wait(&between[0]), wait(&between[place]));
        findings.push(finding);
    }
    Ok(findings)
}

/// Compares one figure of two contenders, round by round.
fn compared(
    what: &str,
    against: &str,
    ours: &[Outcome],
    theirs: &[Outcome],
    figure_of: impl Fn(&Outcome) -> f64,
    goal: Option<f64>,
) -> Finding {
    let rate = |outcomes: &[Outcome]| {
        format!("{}/s", figure(Spread::of(outcomes.iter().map(&figure_of)).median))
    };
    let lead = Spread::of(ours.iter().zip(theirs).map(|(o, t)| figure_of(o) / figure_of(t)));
    Finding::lead(what, against, (rate(ours), rate(theirs)), lead, goal)
}

async fn waiting(quick: bool) -> Result<Vec<Finding>, Failure> {
    let time = Duration::from_secs(if quick { 6 } else { 30 });
    let (footprint, waiting) = tokio::try_join!(counting::footprint(), counting::waiting(time))?;
    let held = format!("{} held locks, lease 10 s", figure(counting::HELD as f64));
    let none = || ("—", "—".to_owned());
    let (ours, theirs) = waiting;
    Ok(vec![
        Finding::count(
            format!("{held}: commands per period"),
            none(),
            footprint.commands,
            "",
            Goal::AtMost(105.0),
        ),
        Finding::count(
            format!("{held}: % of a core"),
            none(),
            footprint.processor * 100.0,
            "",
            Goal::AtMost(2.0),
        ),
        Finding::count(
            format!("{held}: bytes per lock"),
            none(),
            footprint.memory,
            "",
            Goal::AtMost(1024.0),
        ),
        Finding::count(
            "a process that waits: commands in 5 s",
            ("rslock 0.10", figure(theirs)),
            ours,
            "",
            Goal::AtMost(1.0),
        ),
    ])
}

async fn debounce() -> Result<Vec<Finding>, Failure> {
    let (ours, theirs) = counting::debounce().await?;
    Ok(vec![Finding::count(
        "1,000 debounced calls, one window: commands",
        ("@upstash/lock", figure(theirs)),
        ours,
        "",
        Goal::AtMost(5.0),
    )])
}

fn embedded_part(options: &Options) -> Result<Vec<Finding>, Failure> {
    let (rounds, pairs) = if options.quick { (3, 50_000) } else { (9, 200_000) };
    let rate = embedded::memory_pairs(rounds, pairs)?;
    let (time, size) = embedded::attribute(rounds, pairs / 4)?;
    let none = || ("—", "—".to_owned());
    let by_hand = || ("by hand", "1".to_owned());
    Ok(vec![
        Finding::count("memory store, pairs/s on a core", none(), rate, "", Goal::AtLeast(1e6)),
        Finding::count("`#[locked]`: time", by_hand(), time, "", Goal::AtMost(1.05)),
        Finding::count("`#[locked]`: size of the future", by_hand(), size, "", Goal::AtMost(1.10)),
    ])
}
