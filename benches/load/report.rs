//! What is printed: a table for people, or one JSON object per line.

use crate::drive::Measured;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a backend must reach.
#[derive(Clone, Copy)]
enum Target {
    /// At least so many times the floor's rate.
    Rate(f64),
    /// At most so many times the floor's p50, and so much more.
    P50(f64, Duration),
    /// At most so many times the p50 of the case it is compared with.
    SlowerAtMost(f64),
    /// At least so many times the rate of the case it is compared with.
    FasterAtLeast(f64),
}

fn target(url: &str, case: &str) -> Option<Target> {
    use Target::{FasterAtLeast, P50, Rate, SlowerAtMost};
    let extra = Duration::from_micros(2_500);
    match (url.split(':').next()?, case) {
        ("sqlite", "call_sequential") => Some(P50(1.6, Duration::ZERO)),
        ("sqlite", "call_two_processes") => Some(P50(4.0, extra)),
        ("sqlite", "call_64_one") => Some(Rate(15.0)),
        ("sqlite", "call_64_64" | "cast_64_64") => Some(Rate(4.0)),
        ("sqlite", "cast_64_one") => Some(Rate(8.0)),
        ("sqlite", "drain_one") => Some(Rate(25.0)),
        ("fdb", "call_sequential") => Some(P50(1.3, Duration::ZERO)),
        ("fdb", "call_two_processes") => Some(P50(4.0, Duration::ZERO)),
        ("fdb", "call_64_one") => Some(Rate(20.0)),
        ("fdb", "call_64_64") => Some(Rate(10.0)),
        ("fdb", "cast_64_one" | "cast_64_64") => Some(Rate(25.0)),
        ("fdb", "cast_64x16_one" | "cast_64x16_64") => Some(Rate(60.0)),
        ("fdb", "drain_one") => Some(Rate(80.0)),
        ("sqlite" | "fdb", "map_100000") => Some(SlowerAtMost(2.0)),
        ("sqlite" | "fdb", "many_idle") => Some(FasterAtLeast(0.8)),
        _ => None,
    }
}

/// The case that another one is compared with.
fn versus(case: &str) -> Option<&'static str> {
    match case {
        "state_1000" | "state_100000" => Some("state_10"),
        "map_1000" | "map_100000" => Some("map_10"),
        "lazy_1000" | "lazy_100000" => Some("lazy_10"),
        "many_idle" => Some("many_100"),
        _ => None,
    }
}

pub struct Report {
    url: String,
    json: bool,
    floor64_rate: f64,
    /// Rate and p50 of the cases that others are compared with, divided by the floor's.
    seen: BTreeMap<String, (f64, Option<f64>)>,
}

impl Report {
    pub fn new(url: &str, json: bool) -> Self {
        Self {
            url: url.to_owned(),
            json,
            floor64_rate: f64::NAN,
            seen: BTreeMap::new(),
        }
    }

    pub fn floors(&mut self, one: &Measured, together: &Measured) {
        self.floor64_rate = together.rate();
        if self.json {
            return;
        }
        println!("{}", self.url);
        println!(
            "{:>22} {:>9} {:>9} {:>9} {:>8} {:>7} {:>8} {:>6} {:>5} {:>7} {:>7}  must reach",
            "",
            "per s",
            "p50 us",
            "p99 us",
            "commits",
            "keys",
            "bytes",
            "reads",
            "fails",
            "rate x",
            "p50 x",
        );
        for (name, floor) in [("floor", one), ("floor, 64 at once", together)] {
            println!(
                "{name:>22} {:>9.0} {:>9} {:>9}",
                floor.rate(),
                shown(micros(floor, 0.5), 0),
                shown(micros(floor, 0.99), 0),
            );
        }
    }

    pub fn case(&mut self, case: &str, measured: Result<Measured, &str>, floors: [&Measured; 2]) {
        let measured = match measured {
            Ok(measured) => measured,
            Err(why) if self.json => {
                println!(
                    "{}",
                    json!({"case": case, "store": self.url, "skipped": why})
                );
                return;
            }
            Err(why) => {
                println!("{case:>22} skipped: {why}");
                return;
            }
        };
        let figures = self.figures(case, &measured, floors);
        if self.json {
            println!("{figures}");
        } else {
            print_row(case, &figures);
        }
    }

    fn figures(&mut self, case: &str, measured: &Measured, floors: [&Measured; 2]) -> Value {
        let floors = match &measured.floor {
            Some(beside) => vec![&**beside],
            None => floors.to_vec(),
        };
        let mean = |of: &dyn Fn(&Measured) -> f64| {
            floors.iter().map(|floor| of(floor)).sum::<f64>() / floors.len() as f64
        };
        let floor_rate = mean(&Measured::rate);
        let floor_p50 = mean(&|floor| micros(floor, 0.5).unwrap_or(f64::NAN));
        let p50 = micros(measured, 0.5);
        let rate_x = measured.rate() / floor_rate;
        let p50_x = p50.map(|p50| p50 / floor_p50);
        let other = versus(case).and_then(|other| self.seen.get(other).copied());
        let ratio = other.and_then(|(rate, p50)| match target(&self.url, case) {
            Some(Target::FasterAtLeast(_)) => Some(rate_x / rate),
            _ if case.starts_with("many") => Some(rate_x / rate),
            _ => Some(p50_x? / p50?),
        });
        self.seen.insert(case.to_owned(), (rate_x, p50_x));
        let (target, met) = match target(&self.url, case) {
            None => (None, None),
            Some(Target::Rate(least)) => {
                (Some(format!("rate >= {least} x")), Some(rate_x >= least))
            }
            Some(Target::P50(most, extra)) => {
                let extra = extra.as_secs_f64() * 1e6;
                let limit = floor_p50 * most + extra;
                (
                    Some(format!("p50 <= {most} x + {extra} us")),
                    p50.map(|p50| p50 <= limit),
                )
            }
            Some(Target::SlowerAtMost(most)) => (
                Some(format!("p50 <= {most} x map_10")),
                ratio.map(|ratio| ratio <= most),
            ),
            Some(Target::FasterAtLeast(least)) => (
                Some(format!("rate >= {least} x many_100")),
                ratio.map(|ratio| ratio >= least),
            ),
        };
        let each = |count: u64| count as f64 / measured.messages.max(1) as f64;
        let tally = &measured.tally;
        json!({
            "case": case,
            "store": self.url,
            "messages": measured.messages,
            "seconds": measured.elapsed.as_secs_f64(),
            "rate": measured.rate(),
            "p50_us": p50,
            "p99_us": micros(measured, 0.99),
            "commits_per_message": each(tally.commits),
            "keys_per_message": each(tally.keys),
            "bytes_per_message": each(tally.bytes),
            "reads_per_message": each(tally.reads),
            "conflicts": tally.conflicts,
            "floor_rate": floor_rate,
            "floor_p50_us": floor_p50,
            "floor64_rate": self.floor64_rate,
            "rate_x_floor": rate_x,
            "rate_x_floor64": measured.rate() / self.floor64_rate,
            "p50_x_floor": p50_x,
            "versus": versus(case),
            "versus_ratio": ratio,
            "target": target,
            "met": met,
            "idle_reads_per_second": measured.idle.map(|idle| idle.reads_per_second),
            "idle_cpu_percent": measured.idle.map(|idle| idle.cpu_percent),
            "rss_mb": measured.idle.map(|idle| idle.rss_mb),
        })
    }
}

fn print_row(case: &str, figures: &Value) {
    let figure = |name: &str, digits| shown(figures[name].as_f64(), digits);
    let text = |name: &str| figures[name].as_str().unwrap_or_default().to_owned();
    let verdict = match figures["met"].as_bool() {
        Some(true) => ": yes",
        Some(false) => ": NO",
        None => "",
    };
    println!(
        "{case:>22} {:>9} {:>9} {:>9} {:>8} {:>7} {:>8} {:>6} {:>5} {:>7} {:>7}  {}{verdict}",
        figure("rate", 0),
        figure("p50_us", 0),
        figure("p99_us", 0),
        figure("commits_per_message", 4),
        figure("keys_per_message", 2),
        figure("bytes_per_message", 0),
        figure("reads_per_message", 2),
        figure("conflicts", 0),
        figure("rate_x_floor", 2),
        figure("p50_x_floor", 2),
        text("target"),
    );
    if figures["versus_ratio"].is_number() {
        println!(
            "{:>22} {} x {}",
            "",
            figure("versus_ratio", 2),
            text("versus")
        );
    }
    if figures["rss_mb"].is_number() {
        println!(
            "{:>22} idle: {} reads/s, {} % of a core, {} MB resident",
            "",
            figure("idle_reads_per_second", 2),
            figure("idle_cpu_percent", 2),
            figure("rss_mb", 1),
        );
    }
}

fn micros(measured: &Measured, share: f64) -> Option<f64> {
    measured
        .percentile(share)
        .map(|time| time.as_secs_f64() * 1e6)
}

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
}
