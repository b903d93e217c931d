//! Does a kernel compute right? A module in PTX, which every device and the software executor take; every word that it writes is compared
//! with what this processor says.

use std::ffi::CStr;

use serde_json::{Value, json};

use super::cuda::{CallFailed, Cuda};
use super::libraries::advice;
use super::{Finding, parts};

/// Words that are computed.
const WORDS: u32 = 4096 + 77;
/// Rounds for each word.
const ROUNDS: u32 = 16;
const FACTOR: u32 = 1_664_525;
const TERM: u32 = 1_013_904_223;

/// words[i] = sixteen rounds of (word * factor + term) ^ i; a thread for each word, and some without.
const PTX: &CStr = c"
.version 6.0
.target sm_50
.address_size 64

.visible .entry vgpu_smi_rounds(.param .u64 words, .param .u32 count)
{
    .reg .pred %p<3>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<4>;

    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    ld.param.u32 %r4, [count];
    setp.ge.u32 %p1, %r1, %r4;
    @%p1 bra DONE;
    ld.param.u64 %rd1, [words];
    cvta.to.global.u64 %rd1, %rd1;
    mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd3, %rd1, %rd2;
    ld.global.u32 %r5, [%rd3];
    mov.u32 %r6, 16;
ROUND:
    mul.lo.u32 %r5, %r5, 1664525;
    add.u32 %r5, %r5, 1013904223;
    xor.b32 %r5, %r5, %r1;
    sub.u32 %r6, %r6, 1;
    setp.ne.u32 %p2, %r6, 0;
    @%p2 bra ROUND;
    st.global.u32 [%rd3], %r5;
DONE:
    ret;
}
";

/// What the kernel is to make of a word.
fn expected(at: u32, word: u32) -> u32 {
    (0..ROUNDS).fold(word, |word, _| word.wrapping_mul(FACTOR).wrapping_add(TERM) ^ at)
}

/// A word that says where it was.
fn first(at: u32) -> u32 {
    at.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995
}

fn compute_on(cuda: &Cuda, device: i32) -> Result<Option<Value>, CallFailed> {
    let mut words: Vec<u32> = (0..WORDS).map(first).collect();
    cuda.run(device, PTX, c"vgpu_smi_rounds", &mut words)?;
    let wrong = (0..WORDS).zip(&words).find(|(at, word)| **word != expected(*at, first(*at)));
    Ok(wrong.map(|(at, word)| {
        json!({ "device": device, "wrong_at": at, "found": word, "expected": expected(at, first(at)) })
    }))
}

/// In the process of its own.
pub fn compute() -> Value {
    let cuda = match Cuda::load() {
        Ok(cuda) => cuda,
        Err(error) => return parts::trouble(error),
    };
    let all = || {
        cuda.init()?;
        let devices = cuda.devices()?;
        for device in &devices {
            if let Some(wrong) = compute_on(&cuda, *device)? {
                return Ok(wrong);
            }
        }
        Ok(json!({ "devices": devices.len() }))
    };
    all().unwrap_or_else(
        |CallFailed { call, result, words }| json!({ "call": call, "result": result, "words": words }),
    )
}

fn judge(answer: &Value, stderr: &str) -> Finding {
    if let Some(devices) = answer["devices"].as_u64().filter(|devices| *devices != 0) {
        return Finding::Ok(format!(
            "{WORDS} words computed on each of {devices} device(s), every one right"
        ));
    }
    if let Some(at) = answer["wrong_at"].as_u64() {
        return Finding::failed(
            format!(
                "device {} computes wrong: word {at} is {}, not {}",
                answer["device"], answer["found"], answer["expected"]
            ),
            "this must not happen: keep the daemon's log, try the host's GPU natively (its memory or driver may be faulty), and report it",
        );
    }
    let call = answer["call"].as_str().unwrap_or("libcuda.so.1");
    let result = answer["result"].as_i64().unwrap_or(-1);
    let words = answer["words"].as_str().or(answer["trouble"].as_str()).unwrap_or("no device");
    Finding::failed(format!("{call} answers {result} ({words}){}", parts::with(stderr)), advice(result))
}

/// The step.
pub fn check() -> Finding {
    match parts::ask("kernel") {
        Ok(said) => judge(&said.answer, &said.stderr),
        Err(found) => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_the_numbers_that_this_processor_takes() {
        let text = PTX.to_str().unwrap();
        for number in [FACTOR, TERM, ROUNDS] {
            assert!(text.contains(&format!(", {number};")), "{number}");
        }
        assert_eq!(expected(0, 0), (0..ROUNDS).fold(0u32, |x, _| x.wrapping_mul(FACTOR).wrapping_add(TERM)));
        assert_ne!(expected(1, 7), expected(2, 7));
    }

    #[test]
    fn what_it_comes_to() {
        assert!(
            matches!(judge(&json!({ "devices": 2 }), ""), Finding::Ok(said) if said.contains("2 device(s)"))
        );
        let failed = |answer: Value| match judge(&answer, "") {
            Finding::Failed { why, todo } => (why, todo),
            Finding::Ok(said) => panic!("{said}"),
        };
        let (why, _) = failed(json!({ "device": 0, "wrong_at": 5, "found": 1, "expected": 2 }));
        assert_eq!(why, "device 0 computes wrong: word 5 is 1, not 2");
        let (why, todo) = failed(
            json!({ "call": "cuMemAlloc_v2", "result": 2, "words": "CUDA_ERROR_OUT_OF_MEMORY: out of memory" }),
        );
        assert!(why.starts_with("cuMemAlloc_v2 answers 2") && todo.contains("quota"), "{why}");
        assert!(failed(json!({ "devices": 0 })).0.contains("no device"));
    }
}
