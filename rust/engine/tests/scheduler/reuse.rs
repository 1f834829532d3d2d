//! Requests that start with what others have computed.

use llm_engine::model::{Reuse, Token};
use llm_engine::prefix::Change;
use llm_engine::scheduler::{Limits, Scheduler};

use crate::{limits, plan, run};

/// `count` tokens from `first` on.
fn text(first: Token, count: usize) -> Vec<Token> {
    (first..).take(count).collect()
}

/// A prompt that begins with `shared` and goes on in a way of its own.
fn on(shared: &[Token], first: Token, count: usize) -> Vec<Token> {
    [shared, &text(first, count)].concat()
}

/// Computes a prompt and one token of the reply, and ends.
fn finish(scheduler: &mut Scheduler, id: u64, tokens: Vec<Token>) {
    let limit = tokens.len() + 1;
    scheduler.submit(id, tokens, limit, None);
    while !run(scheduler).pieces.iter().any(|piece| piece.samples) {}
    scheduler.remove(id);
}

/// What the next plan computes: id, first position, tokens.
fn pieces(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize)> {
    let plan = run(scheduler);
    let pieces = plan.pieces.iter();
    pieces
        .map(|piece| (piece.id, piece.start, piece.len))
        .collect()
}

#[test]
fn the_next_turn_takes_the_last_one_over() {
    let mut scheduler = Scheduler::new(limits(4, 1000, 200));
    let first = text(1000, 100);
    finish(&mut scheduler, 1, first.clone());
    assert_eq!((scheduler.cells_used(), scheduler.cells_cached()), (0, 100));
    scheduler.changes();
    scheduler.submit(2, on(&first, 1, 10), 200, None);
    let turn = scheduler.plan(&|_, _| true);
    assert_eq!((turn.pieces[0].start, turn.pieces[0].len), (100, 10));
    assert_eq!(scheduler.changes(), []);
    assert_eq!((scheduler.cells_used(), scheduler.cells_cached()), (110, 0));
}

#[test]
fn the_last_token_is_always_computed() {
    let mut scheduler = Scheduler::new(limits(4, 1000, 200));
    let first = text(1000, 100);
    finish(&mut scheduler, 1, first.clone());
    scheduler.changes();
    scheduler.submit(2, first.clone(), 200, None);
    let again = scheduler.plan(&|_, _| true);
    assert_eq!((again.pieces[0].start, again.pieces[0].len), (99, 1));
    let copy = Change::Copy {
        from: 0,
        to: 1,
        len: 99,
    };
    assert_eq!(scheduler.changes(), [copy], "the other end is still of use");
    assert_eq!((scheduler.cells_used(), scheduler.cells_cached()), (100, 1));
    scheduler.computed(&again);
    scheduler.remove(2);
    assert_eq!(
        scheduler.cells_cached(),
        100,
        "the same tokens are kept once"
    );
    finish(&mut scheduler, 3, vec![1000]);
    assert_eq!(scheduler.cells_cached(), 100);
}

#[test]
fn those_who_begin_alike_wait_for_the_first() {
    let mut scheduler = Scheduler::new(limits(9, 2000, 64));
    let system = text(1000, 150);
    for id in 1..=8 {
        scheduler.submit(id, on(&system, id as Token, 10), 300, None);
    }
    scheduler.submit(9, text(5000, 10), 300, None);
    assert_eq!(pieces(&mut scheduler), [(1, 0, 64)]);
    assert_eq!(pieces(&mut scheduler), [(1, 64, 64)]);
    assert_eq!(pieces(&mut scheduler), [(1, 128, 32)], "nobody overtakes");
    // A stream now; 8 tokens of prompts beside it.
    assert_eq!(pieces(&mut scheduler), [(1, 160, 1), (2, 150, 8)]);
    assert_eq!(scheduler.running(), 9);
    assert_eq!(scheduler.cells_used(), 150 + 8 * 10 + 10 + 1);
    scheduler.remove(1);
    scheduler.changes();
    assert_eq!(
        scheduler.cells_used(),
        150 + 7 * 10 + 10,
        "shared by the rest"
    );
}

#[test]
fn a_few_tokens_are_not_worth_waiting_for() {
    let mut scheduler = Scheduler::new(limits(2, 1000, 64));
    let hello = text(1000, 15);
    scheduler.submit(1, on(&hello, 1, 5), 100, None);
    scheduler.submit(2, on(&hello, 9, 5), 100, None);
    assert_eq!(pieces(&mut scheduler), [(1, 0, 20), (2, 0, 20)]);
}

#[test]
fn a_first_that_leaves_is_followed_by_the_next() {
    let mut scheduler = Scheduler::new(limits(4, 1000, 64));
    let system = text(1000, 150);
    for id in 1..=3 {
        scheduler.submit(id, on(&system, id as Token, 10), 300, None);
    }
    assert_eq!(pieces(&mut scheduler), [(1, 0, 64)]);
    scheduler.remove(1);
    assert_eq!(
        pieces(&mut scheduler),
        [(2, 64, 64)],
        "what it computed stays"
    );
    scheduler.discard(2);
    assert_eq!(pieces(&mut scheduler), [(3, 0, 64)]);
}

#[test]
fn the_least_recently_used_gives_its_end_first() {
    let mut scheduler = Scheduler::new(limits(4, 300, 200));
    let (one, two) = (text(1000, 100), text(2000, 100));
    finish(&mut scheduler, 1, one.clone());
    finish(&mut scheduler, 2, two.clone());
    // 50 of the first are used again, beside 20 new ones.
    finish(&mut scheduler, 3, on(&one[..50], 1, 20));
    assert_eq!((scheduler.cells_cached(), scheduler.evicted()), (220, 0));
    // Half of the second must go: the first was used after it.
    finish(&mut scheduler, 4, text(3000, 130));
    assert_eq!((scheduler.cells_cached(), scheduler.evicted()), (300, 50));
    scheduler.submit(5, on(&two, 1, 1), 120, None);
    assert_eq!(plan(&mut scheduler).pieces[0].start, 50);
}

/// Of 20 blocks of 16 cells.
fn in_blocks() -> Scheduler {
    Scheduler::new(Limits {
        block: 16,
        ..limits(4, 320, 200)
    })
}

#[test]
fn whole_blocks_are_given_up() {
    let mut scheduler = in_blocks();
    finish(&mut scheduler, 1, text(1000, 100));
    finish(&mut scheduler, 2, text(2000, 100));
    // Those take 14 blocks, and 96 and 1 tokens 7.
    finish(&mut scheduler, 3, text(3000, 96));
    assert_eq!((scheduler.cells_cached(), scheduler.evicted()), (292, 4));
    // One that goes on in its last block needs no other.
    scheduler.submit(4, on(&text(2000, 100), 1, 8), 110, None);
    assert_eq!(pieces(&mut scheduler), [(4, 100, 8)]);
    assert_eq!((scheduler.cells_used(), scheduler.evicted()), (108, 0));
}

#[test]
fn blocks_are_free_half_of_one_before_they_are_needed() {
    let mut scheduler = in_blocks();
    finish(&mut scheduler, 1, text(1000, 200));
    scheduler.submit(2, text(2000, 80), 200, None);
    let mut evicted = Vec::new();
    for _ in 0..40 {
        run(&mut scheduler);
        evicted.push(scheduler.evicted());
    }
    let when = |&at: &usize| evicted[at] > 0;
    let when: Vec<usize> = (0..40).filter(when).collect();
    // 13 blocks and 5, with 87 cells the 6th; the 8th has to be made free.
    assert_eq!(when, [26]);
    assert_eq!(evicted[26], 8, "the rest of the last one");
}

#[test]
fn a_live_request_always_gets_what_is_kept() {
    let mut scheduler = Scheduler::new(limits(2, 100, 100));
    for id in 1..20 {
        // Each could use the one before, and needs all the pool.
        let shared = text(1000, 5 * (id as usize % 5));
        finish(
            &mut scheduler,
            id,
            on(&shared, 50 * id as Token, 99 - shared.len()),
        );
        assert_eq!(scheduler.cells_used(), 0);
    }
    scheduler.submit(30, text(1, 100), 100, None);
    assert_eq!(pieces(&mut scheduler), [(30, 0, 100)]);
    assert_eq!((scheduler.cells_used(), scheduler.cells_cached()), (100, 0));
}

#[test]
fn a_paused_reply_goes_on_from_its_own_cells() {
    let mut scheduler = Scheduler::new(limits(2, 200, 200));
    scheduler.submit(1, text(1000, 60), 200, None);
    scheduler.submit(2, text(2000, 60), 200, None);
    while run(&mut scheduler).paused.is_empty() {}
    assert_eq!(
        (scheduler.cells_used(), scheduler.cells_cached()),
        (101, 99)
    );
    scheduler.remove(1);
    assert_eq!(pieces(&mut scheduler), [(2, 99, 2)]);
}

#[test]
fn of_what_may_move_only_the_fixed_part_is_shared() {
    let mut scheduler = Scheduler::new(limits(4, 1000, 200));
    let prompt = text(1000, 100);
    scheduler.submit(1, prompt.clone(), 300, Some(40));
    run(&mut scheduler);
    scheduler.submit(2, on(&prompt, 1, 10), 300, None);
    scheduler.submit(3, on(&prompt[..30], 2, 10), 300, Some(20));
    assert_eq!(pieces(&mut scheduler), [(1, 100, 1), (2, 40, 8)]);
    let third = scheduler.tokens(3).len() - 20;
    assert_eq!(scheduler.cells_used(), 101 + 70 + third);
    // The first shifts, and what stays of it later is the fixed part.
    scheduler.shift(1, 40..90);
    scheduler.remove(1);
    assert_eq!(scheduler.cells_cached(), 0, "the second has those, too");
    scheduler.remove(2);
    scheduler.remove(3);
    scheduler.submit(4, on(&prompt, 5, 1), 300, None);
    assert_eq!(plan(&mut scheduler).pieces[0].start, 48);
}

#[test]
fn a_shift_drops_what_is_kept_of_the_moved_cells() {
    let mut scheduler = Scheduler::new(limits(1, 1000, 200));
    let prompt = text(1000, 100);
    finish(&mut scheduler, 1, on(&prompt, 1, 10));
    scheduler.submit(2, on(&prompt, 2, 10), 300, Some(40));
    assert_eq!(pieces(&mut scheduler), [(2, 100, 10)]);
    assert_eq!(
        (scheduler.cells_used(), scheduler.cells_cached()),
        (110, 10)
    );
    scheduler.shift(2, 40..60);
    assert_eq!((scheduler.cells_used(), scheduler.cells_cached()), (90, 0));
}

#[test]
fn windows_must_be_whole_and_states_are_taken_as_they_are() {
    let with = |reuse| {
        let mut scheduler = Scheduler::new(Limits {
            reuse,
            ..limits(3, 1000, 200)
        });
        finish(&mut scheduler, 1, text(1000, 100));
        scheduler
    };
    // The third begins as the first did, and then differs.
    let (same, other) = (text(1000, 110), on(&text(1000, 90), 1, 10));
    for (reuse, intact, tokens, start) in [
        (Reuse::Window, true, &same, 100),
        (Reuse::Window, false, &same, 100),
        (Reuse::Window, true, &other, 90),
        (Reuse::Window, false, &other, 0),
        (Reuse::Whole, true, &same, 100),
        (Reuse::Whole, true, &other, 0),
    ] {
        let mut scheduler = with(reuse);
        scheduler.submit(2, tokens.clone(), 200, None);
        let plan = scheduler.plan(&|_, _| intact);
        assert_eq!(plan.pieces[0].start, start, "{reuse:?} {intact}");
    }
}
