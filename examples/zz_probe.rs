#![allow(
    clippy::all,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs
)]
use abide::store::*;
use std::sync::Arc;
use std::time::Instant;
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let store = abide::store::open(&url).await.unwrap();
    let n = 1500usize;
    let s = &store;
    for i in 0..10u8 {
        let tx = s.begin().unwrap();
        tx.set(&[b'k', i], &[1; 20]);
        tx.commit().await.unwrap();
    }
    let pr = |name: &str, mut v: Vec<u128>| {
        v.sort();
        println!(
            "{name:40} p50 {} p90 {} p99 {}",
            v[v.len() / 2],
            v[v.len() * 9 / 10],
            v[v.len() * 99 / 100]
        );
    };
    for round in 0..2 {
        let mut v = vec![];
        for i in 0..n {
            let t = Instant::now();
            let tx = s.begin().unwrap();
            tx.set(b"a", &(i as u64 + round).to_be_bytes());
            tx.commit().await.unwrap();
            v.push(t.elapsed().as_micros());
        }
        pr("blind commit", v);
        let mut v = vec![];
        for _ in 0..n {
            let t = Instant::now();
            let tx = s.begin().unwrap();
            tx.read_version().await.unwrap();
            v.push(t.elapsed().as_micros());
        }
        pr("grv", v);
        for reads in [1u8, 3, 9] {
            let mut v = vec![];
            for i in 0..n {
                let t = Instant::now();
                let tx = s.begin().unwrap();
                let f: Vec<_> = (0..reads)
                    .map(|k| tx.get(&[b'k', k], Isolation::Serializable))
                    .collect();
                for f in f {
                    f.await.unwrap();
                }
                tx.set(b"a", &(i as u64 + 7).to_be_bytes());
                tx.commit().await.unwrap();
                v.push(t.elapsed().as_micros());
            }
            pr(&format!("grv + {reads} reads + commit"), v);
            let mut v = vec![];
            let mut w = vec![];
            let mut last = None;
            for i in 0..n {
                let t = Instant::now();
                let tx = s.begin().unwrap();
                if let Some(l) = last {
                    tx.set_read_version(l);
                }
                let f: Vec<_> = (0..reads)
                    .map(|k| tx.get(&[b'k', k], Isolation::Serializable))
                    .collect();
                for f in f {
                    f.await.unwrap();
                }
                w.push(t.elapsed().as_micros());
                tx.set(b"a", &(i as u64 + 9).to_be_bytes());
                let c = tx.commit().await.unwrap();
                last = c.map(|c| c.version);
                v.push(t.elapsed().as_micros());
            }
            pr(&format!("chained + {reads} reads + commit"), v);
            pr(&format!("    of which reads"), w);
        }
    }
    let _ = Arc::strong_count(&store);
}
