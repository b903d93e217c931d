//! nvmlDeviceGetFieldValues: many questions in one call, each with a result of its own.

use std::ffi::c_int;

use cuda_api::live::number;

use crate::answer::{Answer, Return};
use crate::machine::{Gpu, Machine};
use crate::{live, modes, nvlink};

/// nvmlFieldValue_t.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FieldValue {
    field: u32,
    scope: u32,
    timestamp_us: i64,
    latency_us: i64,
    kind: u32,
    result: Return,
    value: u64,
}

const ECC_CURRENT: u32 = 1;
const ECC_PENDING: u32 = 2;
const ENERGY: u32 = 83;
const NVLINK_COUNT: u32 = 91;
/// The scope is the link's number.
const NVLINK_STATE: u32 = 165;

/// nvmlValueType_t.
const UNSIGNED_INT: u32 = 1;
const UNSIGNED_LONG_LONG: u32 = 3;

/// A field's type and value.
fn ask(machine: &Machine, gpu: &Gpu, field: u32, scope: u32) -> Answer<(u32, u64)> {
    match field {
        ENERGY => live::now(gpu, number::ENERGY_MJ).map(|energy| (UNSIGNED_LONG_LONG, energy)),
        NVLINK_COUNT => nvlink::count(machine, gpu).map(|count| (UNSIGNED_INT, count.into())),
        NVLINK_STATE => nvlink::is_up(machine, gpu, scope).map(|up| (UNSIGNED_INT, up.into())),
        ECC_CURRENT | ECC_PENDING => modes::ecc(gpu).map(|ecc| (UNSIGNED_INT, ecc.into())),
        0 => Err(Return::INVALID_ARGUMENT),
        _ => Err(Return::NOT_SUPPORTED),
    }
}

fn now_us() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}

/// nvmlDeviceGetFieldValues.
pub unsafe fn values(machine: &Machine, gpu: &Gpu, count: c_int, values: *mut FieldValue) -> Answer {
    let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(Return::INVALID_ARGUMENT)?;
    if values.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    for i in 0..count {
        // SAFETY: NVML's contract: `count` structures, and i < count.
        let to = unsafe { values.add(i) };
        // SAFETY: as above; the caller has written the field and its scope, and every value of the rest is one.
        let mut value = unsafe { to.read_unaligned() };
        value.timestamp_us = now_us();
        value.latency_us = 0;
        match ask(machine, gpu, value.field, value.scope) {
            Ok((kind, number)) => {
                (value.kind, value.value, value.result) = (kind, number, Return::SUCCESS);
            }
            Err(error) => value.result = error,
        }
        // SAFETY: as above.
        unsafe { to.write_unaligned(value) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::two;

    #[test]
    fn each_field_has_a_result_of_its_own() {
        assert_eq!(size_of::<FieldValue>(), 40);
        let machine = two();
        let empty = FieldValue {
            field: 0,
            scope: 0,
            timestamp_us: 0,
            latency_us: 0,
            kind: 0,
            result: Return(77),
            value: 9,
        };
        let mut fields = [empty, FieldValue { field: 999, scope: 3, ..empty }];
        // SAFETY: two structures.
        let asked = unsafe { values(&machine, &machine.gpus[0], 2, fields.as_mut_ptr()) };
        assert_eq!(asked, Ok(()));
        assert_eq!(fields.map(|f| f.result), [Return::INVALID_ARGUMENT, Return::NOT_SUPPORTED]);
        assert_eq!(fields.map(|f| (f.scope, f.value)), [(0, 9), (3, 9)]);
        // SAFETY: nothing is touched.
        let none = unsafe { values(&machine, &machine.gpus[0], 0, fields.as_mut_ptr()) };
        assert_eq!(none, Err(Return::INVALID_ARGUMENT));
    }
}
