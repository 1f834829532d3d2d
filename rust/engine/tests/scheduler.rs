//! The scheduler alone, against seeded random schedules.

use std::collections::BTreeMap;

use llm_engine::RequestId;
use llm_engine::model::SeqId;
use llm_engine::scheduler::{Limits, Plan, Relief, Scheduler};

fn limits(sequences: usize, cells: usize, batch: usize) -> Limits {
    Limits {
        sequences,
        cells,
        batch,
        prompt_beside_streams: 8,
    }
}

/// Runs `plan` as if each request went on after it.
fn run(scheduler: &mut Scheduler) -> Plan {
    let plan = scheduler.plan();
    scheduler.computed(&plan);
    for piece in plan.pieces.iter().filter(|piece| piece.samples) {
        scheduler.extend(piece.id);
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
    assert_eq!(scheduler.plan(), Plan::default());
    scheduler.submit(1, 3, 100);
    scheduler.submit(2, 100, 200);
    assert_eq!(
        lengths(&run(&mut scheduler)),
        [(1, 3, true), (2, 61, false)]
    );
    scheduler.submit(3, 5, 100);
    assert_eq!(lengths(&run(&mut scheduler)), [(1, 1, true), (2, 8, false)]);
    scheduler.remove(1);
    assert_eq!(lengths(&run(&mut scheduler)), [(2, 31, true), (3, 5, true)]);
    assert_eq!(lengths(&run(&mut scheduler)), [(2, 1, true), (3, 1, true)]);
}

#[test]
fn the_youngest_gives_its_cells_to_the_oldest_and_comes_back_first() {
    let mut scheduler = Scheduler::new(limits(3, 160, 160));
    scheduler.submit(1, 40, 160);
    scheduler.submit(2, 40, 160);
    scheduler.submit(3, 10, 20);
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
    assert_eq!(
        lengths(&plan)[0],
        (2, 81, true),
        "prompt and reply again, before the third"
    );
    assert_eq!(lengths(&plan)[1], (3, 10, true));
}

#[test]
fn a_decode_without_room_pauses_then_shrinks_then_gives_up() {
    let mut scheduler = Scheduler::new(limits(2, 100, 64));
    scheduler.submit(1, 40, 50);
    scheduler.submit(2, 4, 8);
    let plan = scheduler.plan();
    let second = plan.pieces[1].sequence;
    assert_eq!(scheduler.no_room(&plan), Relief::Paused(2, second));
    let mut rows = 40;
    while rows > 1 {
        let plan = scheduler.plan();
        assert_eq!(
            lengths(&plan),
            [(1, rows, rows == 40)],
            "nobody is let in while crowded"
        );
        assert_eq!(scheduler.no_room(&plan), Relief::Smaller);
        rows /= 2;
    }
    let plan = scheduler.plan();
    assert_eq!(scheduler.no_room(&plan), Relief::Hopeless(1));
    scheduler.remove(1);
    assert_eq!(lengths(&scheduler.plan()), [(2, 4, true)]);
}

/// A request as the random schedule sees it.
#[derive(Clone, Copy)]
struct Job {
    tokens: usize,
    computed: usize,
    /// Tokens it still wants to sample.
    left: usize,
    sequence: Option<SeqId>,
    started: bool,
    /// Shifts its context instead of ending when it is full.
    shifts: bool,
}

struct Simulation {
    random: fastrand::Rng,
    limits: Limits,
    context: usize,
    scheduler: Scheduler,
    jobs: BTreeMap<RequestId, Job>,
    last_id: RequestId,
    arrivals: usize,
    /// Plans since somebody was let in.
    quiet: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let sequences = random.usize(1..=8);
        let context = random.usize(2..=120);
        let limits = Limits {
            sequences,
            cells: context + random.usize(0..=context * sequences),
            batch: random.usize(sequences..=64),
            prompt_beside_streams: random.usize(1..=16),
        };
        Self {
            scheduler: Scheduler::new(limits),
            arrivals: random.usize(1..=30),
            random,
            limits,
            context,
            jobs: BTreeMap::new(),
            last_id: 0,
            quiet: 0,
        }
    }

    fn run(&mut self) {
        let mut steps = 0;
        while self.arrivals > 0 || !self.jobs.is_empty() {
            steps += 1;
            // Each step computes a token of the oldest, and it is never
            // paused, so there is an end to it.
            assert!(steps < 20_000, "no end in sight");
            if self.arrivals > 0 && self.random.u8(..) < 80 {
                self.arrive();
            }
            if self.random.u8(..) < 8 {
                let id = self.random.u64(0..=self.last_id + 1);
                self.leave(id);
            }
            self.step();
        }
        assert_eq!(self.scheduler.cells_used(), 0);
        assert_eq!(self.scheduler.plan(), Plan::default());
    }

    fn arrive(&mut self) {
        self.arrivals -= 1;
        self.last_id += self.random.u64(1..=3);
        let tokens = self.random.usize(1..self.context);
        let left = self.random.usize(1..=self.context);
        let shifts = self.random.u8(..) < 30;
        let limit = if shifts {
            self.context
        } else {
            self.context.min(tokens + left)
        };
        let job = Job {
            tokens,
            computed: 0,
            left,
            sequence: None,
            started: false,
            shifts,
        };
        self.jobs.insert(self.last_id, job);
        self.scheduler.submit(self.last_id, tokens, limit);
    }

    fn leave(&mut self, id: RequestId) {
        let ran = self
            .jobs
            .keys()
            .take(self.scheduler.running())
            .any(|&other| other == id);
        let seen = self.jobs.remove(&id).and_then(|job| job.sequence);
        let sequence = self.scheduler.remove(id);
        assert_eq!(sequence.is_some(), ran);
        assert_eq!(seen.or(sequence), sequence);
        self.check_pool();
    }

    fn step(&mut self) {
        let ran = self.scheduler.running();
        let plan = self.scheduler.plan();
        for (younger, &(id, sequence)) in plan.paused.iter().enumerate() {
            self.pause(id, sequence, ran - younger);
        }
        assert!(
            plan.paused.is_empty() || self.quiet >= 32,
            "let in just to be paused again"
        );
        let let_in = self.scheduler.running() + plan.paused.len() - ran;
        self.quiet = if let_in > 0 { 0 } else { self.quiet + 1 };
        for job in self.jobs.values_mut().take(self.scheduler.running()) {
            job.started = true;
        }
        self.check_pieces(&plan);
        if !plan.pieces.is_empty() && self.random.u8(..) < 4 {
            self.no_room(&plan);
            return;
        }
        self.scheduler.computed(&plan);
        for piece in &plan.pieces {
            self.job(piece.id).computed += piece.len;
        }
        for piece in plan.pieces.iter().filter(|piece| piece.samples) {
            self.sample(piece.id);
        }
        self.check_pool();
    }

    fn check_pieces(&mut self, plan: &Plan) {
        let running: Vec<RequestId> = self
            .jobs
            .keys()
            .take(self.scheduler.running())
            .copied()
            .collect();
        let first = plan.pieces.first().map(|piece| piece.id);
        assert_eq!(
            first,
            self.jobs.keys().next().copied(),
            "the oldest makes progress"
        );
        assert!(
            plan.pieces.iter().all(|piece| running.contains(&piece.id)),
            "no overtaking"
        );
        assert!(plan.pieces.is_sorted_by_key(|piece| piece.id));
        let (mut streams, mut prompts) = (0, 0);
        for piece in &plan.pieces {
            let job = self.job(piece.id);
            assert_eq!(piece.start, job.computed);
            assert!(piece.len > 0);
            assert_eq!(piece.samples, piece.start + piece.len == job.tokens);
            if job.tokens - job.computed == 1 {
                streams += 1;
            } else {
                prompts += piece.len;
            }
            assert_eq!(*job.sequence.get_or_insert(piece.sequence), piece.sequence);
        }
        assert!(plan.rows() <= self.limits.batch);
        assert!(streams == 0 || prompts <= self.limits.prompt_beside_streams);
        let streaming = |job: &&Job| {
            job.sequence.is_some() && job.computed > 0 && job.tokens - job.computed == 1
        };
        assert!(
            streams >= self.jobs.values().filter(streaming).count(),
            "a stream was left out"
        );
        let mut sequences: Vec<SeqId> = plan.pieces.iter().map(|piece| piece.sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        assert_eq!(
            sequences.len(),
            plan.pieces.len(),
            "two requests in one sequence"
        );
    }

    fn no_room(&mut self, plan: &Plan) {
        let ran = self.scheduler.running();
        match self.scheduler.no_room(plan) {
            Relief::Paused(id, sequence) => self.pause(id, sequence, ran),
            Relief::Smaller => assert!(plan.rows() > 1 && plan.pieces.len() == 1),
            Relief::Hopeless(id) => {
                assert_eq!((plan.rows(), plan.pieces[0].id), (1, id));
                self.leave(id);
            }
        }
        self.check_pool();
    }

    fn sample(&mut self, id: RequestId) {
        let context = self.context;
        let job = self.job(id);
        job.left -= 1;
        if job.left == 0 {
            return self.leave(id);
        }
        job.tokens += 1;
        let job = *job;
        if job.tokens < context {
            return self.scheduler.extend(id);
        }
        if !job.shifts || job.tokens < 3 {
            return self.leave(id);
        }
        let count = self.random.usize(1..=job.tokens - 2);
        self.scheduler.extend(id);
        assert_eq!(Some(self.scheduler.shorten(id, count)), job.sequence);
        let job = self.job(id);
        job.tokens -= count;
        job.computed -= count;
    }

    /// `ran` requests ran, and now the youngest of them does not.
    fn pause(&mut self, id: RequestId, sequence: SeqId, ran: usize) {
        assert!(ran > 1, "the oldest is never paused");
        assert_eq!(
            self.jobs.keys().nth(ran - 1),
            Some(&id),
            "the youngest is paused"
        );
        let job = self.job(id);
        // It has not seen its sequence if it got no piece yet.
        assert_eq!(job.sequence.take().unwrap_or(sequence), sequence);
        job.computed = 0;
    }

    fn check_pool(&self) {
        let computed: usize = self.jobs.values().map(|job| job.computed).sum();
        assert!(computed <= self.scheduler.cells_used());
        assert!(self.scheduler.cells_used() <= self.limits.cells);
        let waiting = self.jobs.values().skip(self.scheduler.running());
        let (paused, new): (Vec<&Job>, Vec<&Job>) = waiting.partition(|job| job.started);
        assert_eq!(
            (self.scheduler.paused(), self.scheduler.waiting()),
            (paused.len(), new.len())
        );
    }

    fn job(&mut self, id: RequestId) -> &mut Job {
        self.jobs
            .get_mut(&id)
            .expect("a request that was submitted and has not left")
    }
}

#[test]
fn random_schedules_keep_every_promise() {
    for seed in 0..3000 {
        let result = std::panic::catch_unwind(|| Simulation::new(seed).run());
        if let Err(panic) = result {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
