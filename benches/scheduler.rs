//! What a step costs before the model is asked: the scheduler alone, with as
//! many requests as a busy server has.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use llm_engine::lookup::Terms;
use llm_engine::model::Reuse;
use llm_engine::scheduler::{Limits, Scheduler};

const TOKENS: usize = 100;
/// More steps than any measurement takes.
const LIMIT: usize = 1 << 40;

fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler/step");
    for running in [1, 8, 32, 256] {
        let limits = Limits {
            sequences: running,
            spare_sequences: 0,
            reuse: Reuse::Any,
            cells: LIMIT * running,
            batch: 512,
            prompt_beside_streams: 128,
            drafts: Terms::NONE,
        };
        group.bench_function(BenchmarkId::from_parameter(running), |bencher| {
            let mut scheduler = Scheduler::new(limits);
            // As many again wait for a sequence.
            for id in 0..2 * running as u64 {
                scheduler.submit(id, vec![id as i32; TOKENS], LIMIT, None);
            }
            bencher.iter(|| {
                let plan = scheduler.plan(&|_, _| true);
                scheduler.computed(&plan);
                for piece in plan.pieces.iter().filter(|piece| piece.samples) {
                    scheduler.extend(piece.id, 0);
                }
                plan
            });
        });
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
