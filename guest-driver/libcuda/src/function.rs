//! Functions and kernels: what came with them answers every question about them, and every launch is checked against it.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::calls::launch::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUfunction, CUlibrary, CUmodule, FunctionInfo, ParamInfo, func_attribute};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::{Process, initialised};
use crate::thread::ThreadState;

/// What is known of a function or kernel.
pub struct FunctionRecord {
    /// The context of a function; 0 for a kernel.
    pub context: u64,
    /// The module of a function, the library of a kernel.
    pub parent: u64,
    /// Its name.
    pub name: CString,
    /// Its parameters' places.
    pub params: Vec<ParamInfo>,
    /// Bytes of its parameter buffer.
    pub param_bytes: usize,
    attributes: [AtomicI32; func_attribute::COUNT],
    valid: AtomicU32,
    /// A kernel's attributes where they were set for one of several devices, by its ordinal.
    of_devices: Mutex<BTreeMap<i32, FunctionInfo>>,
    /// There are some.
    differs: AtomicBool,
    /// Configurations in which the driver has launched it ([`crate::launch`]), 0 = none.
    proven: [AtomicU64; PROVEN],
    next_proven: AtomicUsize,
    /// What the superseded interface has set up of its launch.
    pub set_up: Mutex<Option<crate::old_launch::SetUp>>,
}

/// How many configurations of a function are remembered as proven.
const PROVEN: usize = 8;

/// Bytes of parameters that a kernel has at most: 32764 since CUDA 12.1 (CUDA C++ Programming Guide, "__global__").
const PARAM_BYTES_MAX: u32 = 32 << 10;

impl FunctionRecord {
    /// From what came with it.
    ///
    /// # Errors
    /// CUDA_ERROR_UNKNOWN where the host's word about the parameters makes no sense: it sizes a buffer of this process.
    pub fn new(
        context: u64,
        parent: u64,
        name: CString,
        info: &FunctionInfo,
        params: Vec<ParamInfo>,
    ) -> CuResult<Self> {
        let fits = |p: &ParamInfo| p.offset.checked_add(p.size).is_some_and(|end| end <= info.param_bytes);
        if info.param_bytes > PARAM_BYTES_MAX || !params.iter().all(fits) {
            crate::log::say(|| format!("{}: parameters that cannot be", name.to_string_lossy()));
            return Err(CUresult::UNKNOWN);
        }
        let record = FunctionRecord {
            context,
            parent,
            name,
            params,
            param_bytes: info.param_bytes as usize,
            attributes: [const { AtomicI32::new(0) }; func_attribute::COUNT],
            valid: AtomicU32::new(0),
            of_devices: Mutex::default(),
            differs: AtomicBool::new(false),
            proven: [const { AtomicU64::new(0) }; PROVEN],
            next_proven: AtomicUsize::new(0),
            set_up: Mutex::new(None),
        };
        record.update(info);
        Ok(record)
    }

    /// Its attributes have changed: what was proven with the old ones no longer is.
    pub fn update(&self, info: &FunctionInfo) {
        for (to, from) in self.attributes.iter().zip(info.attributes) {
            to.store(from, Ordering::Relaxed);
        }
        self.valid.store(info.valid, Ordering::Release);
        self.forget_proven();
    }

    /// As [`FunctionRecord::update`], of a kernel on one of several devices.
    pub fn update_on(&self, device: i32, info: &FunctionInfo) {
        crate::objects::lock(&self.of_devices).insert(device, *info);
        self.differs.store(true, Ordering::Release);
        self.forget_proven();
    }

    fn forget_proven(&self) {
        for proven in &self.proven {
            proven.store(0, Ordering::Relaxed);
        }
    }

    /// An attribute's value on a device.
    ///
    /// # Errors
    /// As for [`FunctionRecord::attribute`].
    #[inline]
    pub fn attribute_on(&self, device: i32, number: i32) -> CuResult<i32> {
        if self.differs.load(Ordering::Acquire)
            && let Some(info) = crate::objects::lock(&self.of_devices).get(&device)
        {
            let index = usize::try_from(number).map_err(|_| CUresult::INVALID_VALUE)?;
            let known = index < func_attribute::COUNT && info.valid & 1 << index != 0;
            return if known { Ok(info.attributes[index]) } else { Err(CUresult::INVALID_VALUE) };
        }
        self.attribute(number)
    }

    /// The driver has launched it in this configuration.
    #[inline]
    pub fn is_proven(&self, configuration: u64) -> bool {
        self.proven.iter().any(|p| p.load(Ordering::Relaxed) == configuration)
    }

    /// Remembers that the driver launches it in this configuration.
    pub fn prove(&self, configuration: u64) {
        let place = self.next_proven.fetch_add(1, Ordering::Relaxed) % PROVEN;
        if !self.is_proven(configuration) {
            self.proven[place].store(configuration, Ordering::Relaxed);
        }
    }

    /// An attribute's value.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE for a number that the driver does not know.
    pub fn attribute(&self, number: i32) -> CuResult<i32> {
        let index = usize::try_from(number).map_err(|_| CUresult::INVALID_VALUE)?;
        let value = self.attributes.get(index).ok_or(CUresult::INVALID_VALUE)?;
        if self.valid.load(Ordering::Acquire) & 1 << index == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        Ok(value.load(Ordering::Relaxed))
    }

    /// The same function under another handle and parent.
    ///
    /// # Errors
    /// As for [`FunctionRecord::new`].
    pub fn copy_for(&self, context: u64, parent: u64) -> CuResult<Self> {
        let device = crate::context::device_of(CUcontext(context)).unwrap_or(0);
        let of_device = crate::objects::lock(&self.of_devices).get(&device).copied();
        if let Some(info) = of_device {
            return FunctionRecord::new(context, parent, self.name.clone(), &info, self.params.clone());
        }
        let mut attributes = [0; func_attribute::COUNT];
        for (to, from) in attributes.iter_mut().zip(&self.attributes) {
            *to = from.load(Ordering::Relaxed);
        }
        let info = FunctionInfo {
            attributes,
            valid: self.valid.load(Ordering::Acquire),
            param_bytes: self.param_bytes as u32,
        };
        FunctionRecord::new(context, parent, self.name.clone(), &info, self.params.clone())
    }
}

/// How many functions a thread remembers, a power of two.
pub const REMEMBERED: usize = 16;

/// A function that a thread has launched, and the epochs of both tables for which the memory is good.
pub struct Remembered {
    handle: u64,
    epochs: (u64, u64),
    record: Arc<FunctionRecord>,
}

/// The record of a function or kernel.
///
/// # Errors
/// CUDA_ERROR_INVALID_HANDLE.
pub fn find(process: &Process, function: u64) -> CuResult<Arc<FunctionRecord>> {
    let objects = &process.objects;
    objects.functions.get(function).or_else(|| objects.kernels.get(function)).ok_or(CUresult::INVALID_HANDLE)
}

/// The record of a function or kernel for a launch, without a lock where the thread has launched it before.
///
/// # Errors
/// CUDA_ERROR_INVALID_HANDLE.
#[inline]
pub fn find_remembered<'t>(
    process: &Process,
    functions: &'t mut [Option<Remembered>; REMEMBERED],
    function: u64,
) -> CuResult<&'t FunctionRecord> {
    let epochs = (process.objects.functions.epoch(), process.objects.kernels.epoch());
    let place = &mut functions[(function >> 4) as usize & (REMEMBERED - 1)];
    if !matches!(place, Some(r) if r.handle == function && r.epochs == epochs) {
        let record = find(process, function)?;
        *place = Some(Remembered { handle: function, epochs, record });
    }
    place.as_ref().map(|r| &*r.record).ok_or(CUresult::INVALID_HANDLE)
}

/// cuFuncGetAttribute.
pub unsafe fn cuFuncGetAttribute(value: *mut i32, attribute: i32, function: CUfunction) -> CUresult {
    finish((|| {
        not_null(value)?;
        let process = initialised()?;
        process.alive()?;
        // A kernel launches as a function does, and is none here: its attributes are a device's (cuKernelGetAttribute).
        let record = process.objects.functions.get(function.0).ok_or(CUresult::INVALID_HANDLE)?;
        let found = record.attribute(attribute)?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { value.write(found) };
        Ok(())
    })())
}

/// The number is an attribute's: the driver reads beyond its own table at others, and may crash.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE.
pub fn check_attribute(number: i32) -> CuResult<()> {
    let known = usize::try_from(number).is_ok_and(|number| number < func_attribute::COUNT);
    if known { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// cuFuncSetAttribute.
pub unsafe fn cuFuncSetAttribute(function: CUfunction, attribute: i32, value: i32) -> CUresult {
    finish((|| {
        let record = find(initialised()?, function.0)?;
        check_attribute(attribute)?;
        let info = gate::call::<row::cuFuncSetAttribute>((function, attribute, value))?;
        record.update(&info);
        Ok(())
    })())
}

/// Writes a parameter's place.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE past the last parameter.
///
/// # Safety
/// `offset` has room for a size_t; `size` has, or is NULL.
pub unsafe fn give_param(
    record: &FunctionRecord,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CuResult<()> {
    not_null(offset)?;
    let param = record.params.get(index).ok_or(CUresult::INVALID_VALUE)?;
    // SAFETY: by this function's contract.
    unsafe {
        offset.write(param.offset as usize);
        if !size.is_null() {
            size.write(param.size as usize);
        }
    }
    Ok(())
}

/// cuFuncGetParamInfo.
pub unsafe fn cuFuncGetParamInfo(
    function: CUfunction,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        // Driver 580 has no word of its own for a function that is NULL here.
        if function.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let record = find(process, function.0)?;
        // SAFETY: CUDA's contract is the callee's.
        unsafe { give_param(&record, index, offset, size) }
    })())
}

/// Hands out a name, which the record keeps.
///
/// # Safety
/// `name` has room for a pointer.
pub unsafe fn give_name(record: &FunctionRecord, name: *mut *const c_char) -> CuResult<()> {
    not_null(name)?;
    // SAFETY: by this function's contract. The text lives as long as the record, which lives as long as its module: the life
    // that CUDA promises.
    unsafe { name.write(record.name.as_ptr()) };
    Ok(())
}

/// cuFuncGetName.
pub unsafe fn cuFuncGetName(name: *mut *const c_char, function: CUfunction) -> CUresult {
    finish((|| {
        let process = initialised()?;
        if function.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let record = find(process, function.0)?;
        // SAFETY: CUDA's contract is the callee's.
        unsafe { give_name(&record, name) }
    })())
}

/// cuFuncGetModule.
pub unsafe fn cuFuncGetModule(module: *mut CUmodule, function: CUfunction) -> CUresult {
    finish((|| {
        not_null(module)?;
        let process = initialised()?;
        let record = process.objects.functions.get(function.0).ok_or(CUresult::INVALID_HANDLE)?;
        // A kernel's function belongs to its library's module in that context.
        let library = CUlibrary(record.parent);
        let found = if process.objects.libraries.is_live(library.0) {
            crate::library::module_in(process, library, record.context)?
        } else {
            CUmodule(record.parent)
        };
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { module.write(found) };
        Ok(())
    })())
}

/// Lays kernel parameters out as the kernel wants them.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE where they are given in both ways or not at all; CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, as driver 580,
/// where the buffer is larger than the kernel's. What a smaller one leaves out is 0.
///
/// # Safety
/// `params` and `extra` are what CUDA's documentation of cuLaunchKernel says.
pub unsafe fn lay_out(
    buffer: &mut Vec<u8>,
    record: &FunctionRecord,
    params: *const *const u8,
    extra: *const *const u8,
) -> CuResult<()> {
    buffer.clear();
    buffer.resize(record.param_bytes, 0);
    if !extra.is_null() {
        if !params.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: CUDA's contract: pairs of a key and its value up to the end key.
        let (from, size) = unsafe { parse_extra(extra) }?;
        if from.is_null() && size != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if size > record.param_bytes {
            return Err(CUresult::LAUNCH_OUT_OF_RESOURCES);
        }
        if size == 0 {
            return Ok(());
        }
        // SAFETY: `size` bytes at `from` by the caller's word, and the buffer has at least as many.
        unsafe { std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), size) };
        return Ok(());
    }
    if record.params.is_empty() {
        if record.param_bytes != 0 {
            crate::log::once("parameters without places", || {
                "a kernel's parameters cannot be told apart: its launches need them as one buffer".into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
        return Ok(());
    }
    if params.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    for (i, param) in record.params.iter().enumerate() {
        // SAFETY: CUDA's contract: one pointer per parameter.
        let from = unsafe { params.add(i).read() };
        let to = buffer
            .get_mut(param.offset as usize..)
            .and_then(|rest| rest.get_mut(..param.size as usize))
            .ok_or(CUresult::UNKNOWN)?;
        if from.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: CUDA's contract: as many bytes as the parameter has; `to` is exactly that long.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
    }
    Ok(())
}

/// CU_LAUNCH_PARAM_END, _BUFFER_POINTER, _BUFFER_SIZE.
const PARAM_END: usize = 0;
/// The value is where the buffer is.
pub const PARAM_BUFFER_POINTER: usize = 1;
/// The value points to its size.
pub const PARAM_BUFFER_SIZE: usize = 2;

/// What a graph's node gets for parameters: as for a launch, but what does not fit is a wrong value, a list without a buffer is none, and
/// a list that names a buffer has to name all of it. Answers how many bytes were given as one buffer; 0: they came one by one.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE, or as for [`lay_out`].
///
/// # Safety
/// As for [`lay_out`].
pub unsafe fn lay_out_node(
    buffer: &mut Vec<u8>,
    record: &FunctionRecord,
    params: *const *const u8,
    extra: *const *const u8,
) -> CuResult<usize> {
    // SAFETY: this function's contract: a list has its end key at least.
    if extra.is_null() || unsafe { extra.read() } as usize == PARAM_END {
        // SAFETY: this function's contract is the callee's.
        return unsafe { lay_out(buffer, record, params, std::ptr::null()) }.map(|()| 0);
    }
    // SAFETY: this function's contract is the callee's.
    let (from, size) = unsafe { parse_extra(extra) }?;
    if from.is_null() || size == 0 || size > record.param_bytes {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: this function's contract is the callee's.
    unsafe { lay_out(buffer, record, params, extra) }.map(|()| size)
}

/// # Safety
/// `extra` is a list of pairs as cuLaunchKernel documents it.
unsafe fn parse_extra(extra: *const *const u8) -> CuResult<(*const u8, usize)> {
    let (mut from, mut size) = (std::ptr::null(), 0);
    // Two keys exist; a list that has not ended after a few pairs is none.
    for pair in 0..4 {
        // SAFETY: the list goes on until its end key, by this function's contract.
        let key = unsafe { extra.add(pair * 2).read() } as usize;
        if key == PARAM_END {
            return Ok((from, size));
        }
        // SAFETY: every key but the last has a value.
        let value = unsafe { extra.add(pair * 2 + 1).read() };
        match key {
            PARAM_BUFFER_POINTER => from = value,
            // SAFETY: the value of this key points to a size_t.
            PARAM_BUFFER_SIZE => size = unsafe { value.cast::<usize>().read() },
            _ => return Err(CUresult::INVALID_VALUE),
        }
    }
    Err(CUresult::INVALID_VALUE)
}

/// A thread's own copy of what it launches with.
pub fn params_buffer(state: &mut ThreadState) -> Vec<u8> {
    std::mem::take(&mut state.params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> FunctionRecord {
        let info = FunctionInfo { attributes: [7; 16], valid: 0b11, param_bytes: 24 };
        let params = vec![
            ParamInfo { offset: 0, size: 4 },
            ParamInfo { offset: 8, size: 8 },
            ParamInfo { offset: 16, size: 2 },
        ];
        FunctionRecord::new(0, 0, CString::default(), &info, params).unwrap()
    }

    #[test]
    fn parameters_go_where_the_kernel_wants_them() {
        let (a, b, c) = (1u32, 2u64, 3u16);
        let pointers = [(&raw const a).cast::<u8>(), (&raw const b).cast(), (&raw const c).cast()];
        let mut buffer = vec![0xff; 3];
        // SAFETY: three live parameters, as the record has.
        unsafe { lay_out(&mut buffer, &record(), pointers.as_ptr(), std::ptr::null()) }.unwrap();
        let mut expected = [0u8; 24];
        (expected[0], expected[8], expected[16]) = (1, 2, 3);
        assert_eq!(buffer, expected);
    }

    /// A key of the `extra` list, which are small numbers where pointers go.
    fn key(number: usize) -> *const u8 {
        std::ptr::without_provenance(number)
    }

    #[test]
    fn parameters_as_a_buffer() {
        let data = [5u8; 24];
        let size = data.len();
        let extra = [key(1), data.as_ptr(), key(2), (&raw const size).cast(), std::ptr::null()];
        let mut buffer = Vec::new();
        // SAFETY: a well-formed list over live data.
        unsafe { lay_out(&mut buffer, &record(), std::ptr::null(), extra.as_ptr()) }.unwrap();
        assert_eq!(buffer, data);
        let too_long = 25usize;
        let extra = [key(1), data.as_ptr(), key(2), (&raw const too_long).cast(), std::ptr::null()];
        // SAFETY: the size is refused before the data is read.
        let refused = unsafe { lay_out(&mut buffer, &record(), std::ptr::null(), extra.as_ptr()) };
        assert_eq!(refused, Err(CUresult::LAUNCH_OUT_OF_RESOURCES));
        let short = 5usize;
        let extra = [key(1), data.as_ptr(), key(2), (&raw const short).cast(), std::ptr::null()];
        // SAFETY: a well-formed list over live data.
        unsafe { lay_out(&mut buffer, &record(), std::ptr::null(), extra.as_ptr()) }.unwrap();
        assert_eq!((&buffer[..5], &buffer[5..]), (&[5; 5][..], &[0; 19][..]));
    }

    #[test]
    fn a_node_s_parameters_are_told_apart_by_how_they_came() {
        let (data, params) = ([5u8; 32], [0u64; 3]);
        let pointers: Vec<*const u8> = params.iter().map(|param| std::ptr::from_ref(param).cast()).collect();
        let mut buffer = Vec::new();
        let mut given = |size: usize, extra: &[*const u8], one_by_one: bool| {
            let size_at: *const u8 = (&raw const size).cast();
            let list: Vec<_> = extra.iter().map(|at| if *at == key(9) { size_at } else { *at }).collect();
            let params = if one_by_one { pointers.as_ptr() } else { std::ptr::null() };
            // SAFETY: a list with its end key, over live data; three live parameters.
            unsafe { lay_out_node(&mut buffer, &record(), params, list.as_ptr()) }
        };
        let (end, at) = (key(0), data.as_ptr());
        // Key 9 stands for where the size is.
        let (whole, turned) = ([key(1), at, key(2), key(9), end], [key(2), key(9), key(1), at, end]);
        assert_eq!(given(24, &whole, false), Ok(24));
        assert_eq!(given(24, &turned, false), Ok(24));
        assert_eq!(given(8, &whole, false), Ok(8));
        assert_eq!(given(24, &[end], true), Ok(0));
        let bad = Err(CUresult::INVALID_VALUE);
        for (size, extra, one_by_one) in [
            (24, &whole[..], true),
            (25, &whole, false),
            (0, &whole, false),
            (24, &[key(1), at, end], false),
            (24, &[key(2), key(9), end], false),
            (24, &[key(7), at, end], false),
            (24, &[end], false),
        ] {
            assert_eq!(given(size, extra, one_by_one), bad, "{size} {} {one_by_one}", extra.len());
        }
    }

    #[test]
    fn parameters_that_cannot_be_are_refused() {
        let new = |param_bytes, offset, size| {
            let info = FunctionInfo { attributes: [0; 16], valid: 0, param_bytes };
            let params = vec![ParamInfo { offset, size }];
            FunctionRecord::new(0, 0, CString::default(), &info, params).map(|_| ())
        };
        assert_eq!(new(PARAM_BYTES_MAX, PARAM_BYTES_MAX - 4, 4), Ok(()));
        assert_eq!(new(PARAM_BYTES_MAX + 1, 0, 4), Err(CUresult::UNKNOWN));
        assert_eq!(new(8, 4, 8), Err(CUresult::UNKNOWN));
        assert_eq!(new(8, u32::MAX, 8), Err(CUresult::UNKNOWN));
    }

    #[test]
    fn what_is_proven_lasts_until_the_attributes_change() {
        let r = record();
        assert!(!r.is_proven(1));
        (1..=PROVEN as u64).for_each(|c| r.prove(c));
        r.prove(1);
        assert!((1..=PROVEN as u64).all(|c| r.is_proven(c)));
        r.update(&FunctionInfo { attributes: [7; 16], valid: 0b11, param_bytes: 24 });
        assert!(!(1..=PROVEN as u64).any(|c| r.is_proven(c)));
    }

    #[test]
    fn attributes_without_a_value_are_refused() {
        let r = record();
        assert_eq!(r.attribute(1), Ok(7));
        assert_eq!(r.attribute(2), Err(CUresult::INVALID_VALUE));
        assert_eq!(r.attribute(-1), Err(CUresult::INVALID_VALUE));
        assert_eq!(r.attribute(99), Err(CUresult::INVALID_VALUE));
    }
}
