//! The scheduler alone.

mod cells;
mod random;
mod reuse;

use llm_engine::RequestId;
use llm_engine::lookup::Terms;
use llm_engine::model::{Reuse, Token};
use llm_engine::scheduler::{Limits, Plan, Relief, Scheduler};

fn limits(sequences: usize, cells: usize, batch: usize) -> Limits {
    Limits {
        sequences,
        spare_sequences: 2,
        reuse: Reuse::Any,
        cells,
        block: 1,
        batch,
        prompt_beside_streams: 8,
        drafts: Terms::NONE,
    }
}

/// Submits a prompt that has nothing in common with that of another id.
fn submit(scheduler: &mut Scheduler, id: RequestId, tokens: usize, limit: usize) {
    scheduler.submit(id, vec![id as Token; tokens], limit, None);
}

fn plan(scheduler: &mut Scheduler) -> Plan {
    let plan = scheduler.plan(&|_, _| true);
    scheduler.changes();
    plan
}

/// Runs `plan` as if each request went on after it.
fn run(scheduler: &mut Scheduler) -> Plan {
    let plan = plan(scheduler);
    scheduler.computed(&plan);
    for piece in plan.pieces.iter().filter(|piece| piece.samples) {
        scheduler.extend(piece.id, 0);
    }
    plan
}

fn lengths(plan: &Plan) -> Vec<(RequestId, usize, bool)> {
    plan.pieces
        .iter()
        .map(|piece| (piece.id, piece.len, piece.samples))
        .collect()
}

#[test]
fn prompts_fill_the_batch_alone_and_are_bounded_beside_streams() {
    let mut scheduler = Scheduler::new(limits(4, 1000, 64));
    assert_eq!(plan(&mut scheduler), Plan::default());
    submit(&mut scheduler, 1, 3, 100);
    submit(&mut scheduler, 2, 100, 200);
    assert_eq!(
        lengths(&run(&mut scheduler)),
        [(1, 3, true), (2, 61, false)]
    );
    submit(&mut scheduler, 3, 5, 100);
    assert_eq!(lengths(&run(&mut scheduler)), [(1, 1, true), (2, 8, false)]);
    scheduler.remove(1);
    assert_eq!(lengths(&run(&mut scheduler)), [(2, 31, true), (3, 5, true)]);
    assert_eq!(lengths(&run(&mut scheduler)), [(2, 1, true), (3, 1, true)]);
}

#[test]
fn the_youngest_gives_its_cells_to_the_oldest_and_comes_back_first() {
    let mut scheduler = Scheduler::new(limits(3, 160, 160));
    submit(&mut scheduler, 1, 40, 160);
    submit(&mut scheduler, 2, 40, 160);
    submit(&mut scheduler, 3, 10, 20);
    while scheduler.paused() == 0 {
        let plan = run(&mut scheduler);
        assert!(scheduler.cells_used() <= 160);
        assert!(
            plan.pieces.iter().all(|piece| piece.id < 3),
            "no room for the third's growth"
        );
    }
    assert_eq!(
        (scheduler.running(), scheduler.paused(), scheduler.waiting()),
        (1, 1, 1)
    );
    scheduler.remove(1);
    let plan = run(&mut scheduler);
    let resumed = plan.pieces[0];
    assert_eq!((resumed.id, resumed.samples), (2, true), "before the third");
    // The first needed one more cell, and got it from the end of the second's.
    assert_eq!((resumed.start, resumed.len), (79, 2));
    assert_eq!(lengths(&plan)[1], (3, 10, true));
}

#[test]
fn a_decode_without_room_pauses_then_shrinks_then_gives_up() {
    let mut scheduler = Scheduler::new(limits(2, 100, 64));
    submit(&mut scheduler, 0, 19, 20);
    run(&mut scheduler);
    scheduler.remove(0);
    submit(&mut scheduler, 1, 40, 50);
    submit(&mut scheduler, 2, 4, 8);
    let first = plan(&mut scheduler);
    assert_eq!(scheduler.cells_cached(), 19);
    assert_eq!(scheduler.no_room(&first), Relief::Evicted);
    assert_eq!((scheduler.cells_cached(), scheduler.evicted()), (0, 19));
    assert_eq!(scheduler.no_room(&first), Relief::Paused(2));
    let mut rows = 40;
    while rows > 1 {
        let plan = plan(&mut scheduler);
        assert_eq!(
            lengths(&plan),
            [(1, rows, rows == 40)],
            "nobody is let in while crowded"
        );
        assert_eq!(scheduler.no_room(&plan), Relief::Smaller);
        rows /= 2;
    }
    let last = plan(&mut scheduler);
    assert_eq!(scheduler.no_room(&last), Relief::Hopeless(1));
    scheduler.discard(1);
    assert_eq!(scheduler.cells_cached(), 0);
    assert_eq!(lengths(&plan(&mut scheduler)), [(2, 4, true)]);
}
