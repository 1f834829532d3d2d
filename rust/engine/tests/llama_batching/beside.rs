//! Requests at the same time.

use llm_engine::{Config, FinishReason};

use crate::harness::{Bench, Choices, ROUNDING, Reply, Subject, compare, greedy};

/// How a run ended for each request, and the choices of all.
struct Run {
    replies: Vec<Reply>,
    choices: Choices,
}

fn run(subject: &Subject, config: Config, prompts: &[String], max_tokens: u32) -> Run {
    let bench = Bench::new(subject, config);
    let requests = prompts.iter();
    let requests = requests.map(|prompt| greedy(&bench.engine, prompt, max_tokens));
    let replies = bench.replies(requests.collect());
    let choices = bench.choices();
    Run { replies, choices }
}

/// llama.cpp computes such a step in several parts, and the stream's logits are
/// not those of the last one.
#[test]
fn a_stream_of_a_recurrent_model_beside_a_long_prompt() {
    const TOKENS: u32 = 24;
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(90);
    let config = |parallel| Config {
        context: 1024,
        pool: 1024 * parallel,
        parallel,
        queue: 2,
        prompt_lookup: false,
    };
    for subject in Subject::recurrent().both() {
        for prompts in [["Once upon a time", &long], [&long, "Once upon a time"]] {
            let prompts = prompts.map(str::to_owned);
            let alone = run(&subject, config(1), &prompts, TOKENS);
            let together = run(&subject, config(2), &prompts, TOKENS);
            let compared = compare(&alone.choices, &together.choices, ROUNDING);
            assert!(compared > alone.choices.len() / 2, "{compared} compared");
        }
    }
}

/// Prompts of 6 to 100 tokens, no two alike.
fn prompts(count: usize) -> Vec<String> {
    const SUBJECTS: [&str; 8] = [
        "The capital of France is",
        "Once upon a time, there was a",
        "Water boils when",
        "def add(a, b):\n    return",
        "The best way to learn a language is",
        "In the year 1900, the city of",
        "1, 2, 3, 4,",
        "Dear Sir or Madam, I am writing",
    ];
    let filler = "The quick brown fox jumps over the lazy dog. ";
    (0..count)
        .map(|index| {
            let subject = SUBJECTS[index % SUBJECTS.len()];
            format!("Text {index}. {}{subject}", filler.repeat(index * 5 % 9))
        })
        .collect()
}

fn beside_others_and_paused(subject: &Subject) {
    const REQUESTS: usize = 10;
    const TOKENS: u32 = 48;
    let prompts = prompts(REQUESTS);
    let config = |pool, parallel| Config {
        context: 256,
        pool,
        parallel,
        queue: REQUESTS as u32,
        prompt_lookup: false,
    };
    let alone = run(subject, config(256, 1), &prompts, TOKENS);
    let together = run(subject, config(2048, 8), &prompts, TOKENS);
    let crowded = run(subject, config(256, 8), &prompts, TOKENS);

    assert!(alone.choices.len() >= REQUESTS * TOKENS as usize - REQUESTS);
    for run in [&together, &crowded] {
        // Turned choices are rare: most of what was chosen can be compared.
        let compared = compare(&alone.choices, &run.choices, ROUNDING);
        assert!(compared > alone.choices.len() / 4, "{compared} compared");
        let pairs = || run.replies.iter().zip(&alone.replies);
        for (reply, expected) in pairs() {
            assert_eq!(reply.reason, FinishReason::Length);
            assert_eq!(reply.usage.prompt_tokens, expected.usage.prompt_tokens);
            assert_eq!(reply.usage.completion_tokens, TOKENS);
        }
        let same = pairs().filter(|(reply, expected)| reply.text == expected.text);
        assert!(same.count() >= REQUESTS / 4);
    }
    let pauses = |run: &Run| -> u32 {
        let replies = run.replies.iter();
        replies.map(|reply| reply.usage.pauses).sum()
    };
    assert_eq!((pauses(&alone), pauses(&together)), (0, 0));
    assert!(pauses(&crowded) > 0, "the pool is small enough to pause");
}

#[test]
fn beside_others_and_paused_as_alone() {
    beside_others_and_paused(&Subject::demo());
}

#[test]
fn with_sliding_windows_too() {
    for subject in Subject::windows().both() {
        beside_others_and_paused(&subject);
    }
}
