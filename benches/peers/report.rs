//! The table, and a picture of it.

use std::{fmt::Write, process::Command, thread};

use lock_tests::RedisServer;

use crate::findings::Finding;

/// Describes the machine of the measurement.
pub(crate) async fn machine(split: bool, workers: usize) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let cores = if split {
        format!("{cores} cores for the clients, 1 for the server")
    } else {
        format!("{cores} cores, shared by clients and server")
    };
    let server = RedisServer::start();
    let redis = redis_version(&server).await.unwrap_or_else(|| "of unknown version".to_owned());
    let rustc = rustc_version().unwrap_or_else(|| "rustc of unknown version".to_owned());
    format!("{cores}; tokio with {workers} workers; Redis {redis} on loopback; {rustc}")
}

/// The whole page.
pub(crate) fn markdown(machine: &str, findings: &[Finding], failures: &[String]) -> String {
    let mut page = format!(
        "# Measured\n\n\
         {machine}.\n\n\
         Contenders take turns within each round; figures are medians of the rounds, and a lead (×) \
         is compared within a round: median (lowest–highest). `cargo bench` writes this page and \
         `results.svg`.\n\n{HEAD}\n"
    );
    for finding in findings {
        let _ = writeln!(page, "{}", line(finding));
    }
    for failure in failures {
        let _ = writeln!(page, "\n**Void:** {failure}");
    }
    page
}

/// The first two lines of the table.
pub(crate) const HEAD: &str = "| what | against | lock | theirs | result | goal | met |\n\
                               |---|---|--:|--:|--:|--:|---|";

/// One line of the table.
pub(crate) fn line(finding: &Finding) -> String {
    let unit = if finding.shown.contains('×') { " ×" } else { "" };
    let goal = finding.goal.map_or_else(|| "—".to_owned(), |goal| goal.shown(unit));
    let met = match finding.is_met() {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    };
    let Finding { what, against, ours, theirs, shown, .. } = finding;
    format!("| {what} | {against} | {ours} | {theirs} | {shown} | {goal} | {met} |")
}

/// Draws how far each goal is reached, on a logarithmic scale with the goal in the middle.
pub(crate) fn picture(findings: &[Finding]) -> String {
    const ROW: usize = 24;
    const TOP: usize = 46;
    const LEFT: f64 = 400.0;
    const HALF: f64 = 170.0;
    // The ends of the scale.
    const MOST: f64 = 8.0;

    let rows: Vec<_> =
        findings.iter().filter_map(|finding| Some((finding, finding.goal?))).collect();
    let height = TOP + rows.len() * ROW + 12;
    let middle = LEFT + HALF;
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#808080\">\n\
         <title>How far each goal is reached</title>\n"
    );
    for (times, label) in [
        (0.125, "⅛"),
        (0.25, "¼"),
        (0.5, "½"),
        (1.0, "goal"),
        (2.0, "2 ×"),
        (4.0, "4 ×"),
        (8.0, "8 ×"),
    ] {
        let x = middle + HALF * f64::ln(times) / f64::ln(MOST);
        let (width, opacity) = if times == 1.0 { (2, 1.0) } else { (1, 0.35) };
        let bottom = height - 8;
        let _ = writeln!(
            picture,
            "<text x=\"{x:.0}\" y=\"20\" text-anchor=\"middle\">{label}</text>\
             <line x1=\"{x:.0}\" x2=\"{x:.0}\" y1=\"28\" y2=\"{bottom}\" stroke=\"#808080\" \
             stroke-width=\"{width}\" opacity=\"{opacity}\"/>"
        );
    }
    for (number, (finding, goal)) in rows.into_iter().enumerate() {
        let y = TOP + number * ROW;
        let reached = goal.reached_by(finding.result).clamp(1.0 / MOST, MOST);
        let end = middle + HALF * reached.ln() / MOST.ln();
        let (x, width) = (end.min(middle), (end - middle).abs().max(1.5));
        let color = if reached >= 1.0 { "#2f9e77" } else { "#d9822b" };
        let against = match finding.against.as_str() {
            "—" => String::new(),
            against => format!(", {against}"),
        };
        let label = escaped(&format!("{}{against}", finding.what));
        let shown = escaped(finding.shown.split(" (").next().unwrap_or_default());
        let (text_y, label_x) = (y + 12, LEFT - 14.0);
        let _ = writeln!(
            picture,
            "<text x=\"{label_x:.0}\" y=\"{text_y}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" fill=\"{color}\"/>\
             <text x=\"760\" y=\"{text_y}\">{shown}</text>"
        );
    }
    picture.push_str("</svg>\n");
    picture
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "")
}

async fn redis_version(server: &RedisServer) -> Option<String> {
    let mut connection = server.connection().await;
    let report: String =
        redis::cmd("INFO").arg("server").query_async(&mut connection).await.ok()?;
    report.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::to_owned)
}

/// The version of the compiler on the path, which `cargo bench` has also used.
fn rustc_version() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    Some(version.split(" (").next()?.trim().to_owned()).filter(|version| !version.is_empty())
}
