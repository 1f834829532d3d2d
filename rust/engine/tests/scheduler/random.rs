//! Seeded random schedules against a model of the cells.

use std::collections::BTreeMap;

use llm_engine::RequestId;
use llm_engine::lookup::Terms;
use llm_engine::model::{Reuse, SeqId, Token};
use llm_engine::prefix::Change;
use llm_engine::scheduler::{Limits, Piece, Plan, Relief, Scheduler};

use crate::cells::Model;

/// A request as the random schedule sees it.
#[derive(Clone)]
struct Job {
    tokens: Vec<Token>,
    computed: usize,
    /// Tokens it still wants to sample.
    left: usize,
    sequence: Option<SeqId>,
    started: bool,
    /// Shifts its context instead of ending when it is full, and keeps so
    /// many tokens.
    keep: Option<usize>,
    shifted: bool,
}

struct Simulation {
    random: fastrand::Rng,
    limits: Limits,
    context: usize,
    scheduler: Scheduler,
    jobs: BTreeMap<RequestId, Job>,
    model: Model,
    /// Prompts so far, for others that begin as they do.
    prompts: Vec<Vec<Token>>,
    last_id: RequestId,
    arrivals: usize,
    /// Tokens that a request may have got since somebody was let in.
    quiet: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let sequences = random.usize(1..=8);
        let context = random.usize(2..=120);
        let limits = Limits {
            sequences,
            spare_sequences: random.usize(0..=4),
            reuse: [Reuse::Any, Reuse::Any, Reuse::Window, Reuse::Whole][random.usize(0..4)],
            cells: context + random.usize(0..=context * sequences),
            block: [1, 1, 8, 16][random.usize(0..4)],
            batch: random.usize(sequences..=64),
            prompt_beside_streams: random.usize(1..=16),
            drafts: [Terms::NONE, Terms::CHEAP, Terms::CHEAP, Terms::DEAR][random.usize(0..4)],
        };
        let limits = Limits {
            // A state has no tail that could be dropped.
            drafts: if limits.reuse == Reuse::Whole {
                Terms::NONE
            } else {
                limits.drafts
            },
            ..limits
        };
        Self {
            scheduler: Scheduler::new(limits),
            arrivals: random.usize(1..=30),
            random,
            limits,
            context,
            jobs: BTreeMap::new(),
            model: Model::default(),
            prompts: Vec::new(),
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
        assert_eq!(self.scheduler.plan(&|_, _| true), Plan::default());
    }

    fn arrive(&mut self) {
        self.arrivals -= 1;
        self.last_id += self.random.u64(1..=3);
        let tokens = self.prompt();
        let left = self.random.usize(1..=self.context);
        let shifts = self.limits.reuse == Reuse::Any && self.random.u8(..) < 50;
        let keep = shifts.then(|| self.random.usize(1..=tokens.len()));
        let limit = if shifts {
            self.context
        } else {
            self.context.min(tokens.len() + left)
        };
        let job = Job {
            tokens: tokens.clone(),
            computed: 0,
            left,
            sequence: None,
            started: false,
            keep,
            shifted: false,
        };
        self.jobs.insert(self.last_id, job);
        self.scheduler.submit(self.last_id, tokens, limit, keep);
    }

    /// Something new, or as another one began, or as it went on.
    fn prompt(&mut self) -> Vec<Token> {
        let len = self.random.usize(1..self.context);
        let mut tokens = Vec::new();
        if self.random.u8(..) < 200 {
            let others = self
                .prompts
                .iter()
                .chain(self.jobs.values().map(|job| &job.tokens));
            let others: Vec<&Vec<Token>> = others.collect();
            if !others.is_empty() {
                tokens = others[self.random.usize(0..others.len())].clone();
                if self.random.bool() {
                    tokens.truncate(len);
                }
            }
        }
        while tokens.len() < len {
            tokens.push(self.random.i32(0..4));
        }
        tokens.truncate(self.context - 1);
        self.prompts.push(tokens.clone());
        tokens
    }

    fn leave(&mut self, id: RequestId) {
        self.jobs.remove(&id);
        if self.random.u8(..) < 20 {
            self.scheduler.discard(id);
        } else {
            self.scheduler.remove(id);
        }
        self.rearrange();
        self.check_pool();
    }

    fn rearrange(&mut self) {
        for change in self.scheduler.changes() {
            if self.limits.reuse == Reuse::Whole {
                assert!(matches!(
                    change,
                    Change::Remove {
                        from: 0,
                        to: None,
                        ..
                    }
                ));
            }
            self.model.apply(change);
        }
    }

    fn step(&mut self) {
        let ran = self.scheduler.running();
        let whim = self.random.u64(..);
        let intact = |sequence, len| {
            self.limits.reuse != Reuse::Window || (whim ^ sequence as u64) % (len as u64 + 1) < 20
        };
        let plan = self.scheduler.plan(&intact);
        self.rearrange();
        for (younger, &id) in plan.paused.iter().enumerate() {
            self.pause(id, ran - younger);
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
            let job = self.jobs.get_mut(&piece.id).expect("a job");
            job.computed += piece.len;
            let drafted = piece.draft.tokens(&job.tokens);
            let tokens: Vec<Token> = job.tokens[..job.computed]
                .iter()
                .copied()
                .chain(drafted)
                .collect();
            self.model.compute(piece.sequence, &tokens);
        }
        // All of them first: drafts are nobody's when the pool is counted.
        for (piece, _) in plan.samples() {
            self.verify(piece);
        }
        for (piece, _) in plan.samples() {
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
            let job = self.jobs.get_mut(&piece.id).expect("a job");
            if job.sequence.is_none() {
                // What it starts with was found.
                job.computed = piece.start;
            }
            assert_eq!(piece.start, job.computed);
            assert!(piece.len > 0);
            assert_eq!(self.scheduler.tokens(piece.id), job.tokens);
            let known = &job.tokens[..piece.start];
            self.model.check(piece.sequence, known, !job.shifted);
            assert_eq!(piece.samples, piece.start + piece.len == job.tokens.len());
            if job.tokens.len() - job.computed == 1 {
                streams += 1;
            } else {
                prompts += piece.len;
            }
            assert_eq!(*job.sequence.get_or_insert(piece.sequence), piece.sequence);
        }
        assert!(plan.rows() <= self.limits.batch);
        assert!(plan.drafted() <= self.limits.drafts.longest());
        assert!(plan.drafted() == 0 || prompts == 0);
        assert!(streams == 0 || prompts <= self.limits.prompt_beside_streams);
        let streaming = |job: &&Job| {
            job.sequence.is_some() && job.computed > 0 && job.tokens.len() - job.computed == 1
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
        let cached = self.scheduler.cells_cached();
        let relief = self.scheduler.no_room(plan);
        self.rearrange();
        match relief {
            Relief::Evicted => assert_eq!(self.scheduler.cells_cached(), 0),
            Relief::Paused(id) => self.pause(id, ran),
            Relief::Smaller => {
                assert!(plan.rows() > 1 && (plan.pieces.len() == 1 || plan.drafted() > 0));
            }
            Relief::Hopeless(id) => {
                assert_eq!((plan.rows(), plan.pieces[0].id), (1, id));
                self.leave(id);
            }
        }
        assert!(cached == 0 || relief == Relief::Evicted);
        self.check_pool();
    }

    /// Confirms some of a draft.
    fn verify(&mut self, piece: &Piece) {
        let job = self.jobs.get_mut(&piece.id).expect("a job");
        let mut right = self.random.usize(0..=piece.draft.len);
        // The last token that it wants is not confirmed but ends it.
        right = right.min(job.left - 1);
        let drafted: Vec<Token> = piece.draft.tokens(&job.tokens).take(right).collect();
        for token in drafted {
            job.left -= 1;
            job.tokens.push(token);
            job.computed += 1;
            self.scheduler.confirm(piece.id, token);
        }
        self.scheduler.judge(piece, right);
        self.quiet += right;
        self.rearrange();
    }

    fn sample(&mut self, id: RequestId) {
        let context = self.context;
        let token = self.random.i32(0..4);
        let job = self.job(id);
        job.left -= 1;
        if job.left == 0 {
            return self.leave(id);
        }
        job.tokens.push(token);
        let job = job.clone();
        if job.tokens.len() < context {
            return self.scheduler.extend(id, token);
        }
        let movable = |keep: usize| job.tokens.len() - 1 - keep;
        let Some(keep) = job.keep.filter(|&keep| movable(keep) > 0) else {
            return self.leave(id);
        };
        let count = self.random.usize(1..=movable(keep));
        self.scheduler.extend(id, token);
        self.scheduler.shift(id, keep..keep + count);
        let job = self.job(id);
        job.tokens.drain(keep..keep + count);
        job.computed -= count;
        job.shifted = true;
        self.rearrange();
    }

    /// `ran` requests ran, and now the youngest of them does not.
    fn pause(&mut self, id: RequestId, ran: usize) {
        assert!(ran > 1, "the oldest is never paused");
        assert_eq!(
            self.jobs.keys().nth(ran - 1),
            Some(&id),
            "the youngest is paused"
        );
        let job = self.job(id);
        job.sequence = None;
        job.computed = 0;
        job.shifted = false;
    }

    fn check_pool(&self) {
        let (used, cached) = (self.scheduler.cells_used(), self.scheduler.cells_cached());
        assert!(used + cached <= self.limits.cells);
        let live: Vec<SeqId> = self.jobs.values().filter_map(|job| job.sequence).collect();
        let (computed, kept) = self.model.count(&live);
        assert!(computed <= used);
        // Requests without a piece yet may have taken some of the kept ones.
        assert!(kept >= cached && computed + kept <= used + cached);
        if live.len() == self.scheduler.running() {
            assert_eq!(kept, cached);
        }
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
