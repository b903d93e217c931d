//! Arrays: what of them is not generic. A level of a mipmapped array and a plane of a multi-planar one are arrays that belong to
//! another object: asking twice gives the same handle, and they go with it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use cuda_api::calls::texture::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUarray, CUmipmappedArray, Handle};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::objects::{Objects, lock};
use crate::process::initialised;
use crate::thread;

/// The parts of arrays that were asked for: (whole, number) → part.
static PARTS: Mutex<BTreeMap<(u64, u32), u64>> = Mutex::new(BTreeMap::new());

fn part<W: Handle>(
    to: *mut CUarray,
    whole: W,
    number: u32,
    make: impl FnOnce(CUarray) -> CuResult<()>,
) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(to)?;
    process.objects.check(whole)?;
    let mut parts = lock(&PARTS);
    let known = parts.get(&(whole.raw(), number)).map(|raw| CUarray(*raw));
    let array = match known.filter(|array| process.objects.check(*array).is_ok()) {
        Some(array) => array,
        None => {
            let array: CUarray =
                process.objects.insert_plain(crate::context::owner(thread::current_context()).0)?;
            make(array).inspect_err(|_| process.objects.remove_plain(array))?;
            parts.insert((whole.raw(), number), array.0);
            array
        }
    };
    // SAFETY: not NULL; room for a handle by CUDA's contract.
    unsafe { to.write(array) };
    Ok(())
}

/// An object is gone, and its parts with it.
fn forget<W: Handle>(whole: W) -> CuResult<()> {
    let process = initialised()?;
    process.objects.remove_plain(whole);
    let mut parts = lock(&PARTS);
    let gone: Vec<_> =
        parts.range((whole.raw(), 0)..=(whole.raw(), u32::MAX)).map(|(k, v)| (*k, *v)).collect();
    for (key, array) in gone {
        parts.remove(&key);
        process.objects.remove_plain(CUarray(array));
    }
    Ok(())
}

/// What is no longer alive has no parts: its handle may come to name something else.
pub fn forget_dead(objects: &Objects) {
    lock(&PARTS)
        .retain(|(whole, _), _| objects.arrays.is_live(*whole) || objects.mipmapped_arrays.is_live(*whole));
}

/// cuMipmappedArrayGetLevel.
pub unsafe fn cuMipmappedArrayGetLevel(to: *mut CUarray, mipmap: CUmipmappedArray, level: u32) -> CUresult {
    finish(part(to, mipmap, level, |array| {
        gate::call::<row::cuMipmappedArrayGetLevel>((array, mipmap, level))
    }))
}

/// cuArrayGetPlane.
pub unsafe fn cuArrayGetPlane(to: *mut CUarray, array: CUarray, plane: u32) -> CUresult {
    finish(part(to, array, plane, |part| gate::call::<row::cuArrayGetPlane>((part, array, plane))))
}

/// cuArrayDestroy.
pub unsafe fn cuArrayDestroy(array: CUarray) -> CUresult {
    finish((|| {
        initialised()?.objects.check(array)?;
        gate::call::<row::cuArrayDestroy>((array,))?;
        forget(array)
    })())
}

/// cuMipmappedArrayDestroy.
pub unsafe fn cuMipmappedArrayDestroy(mipmap: CUmipmappedArray) -> CUresult {
    finish((|| {
        initialised()?.objects.check(mipmap)?;
        gate::call::<row::cuMipmappedArrayDestroy>((mipmap,))?;
        forget(mipmap)
    })())
}
