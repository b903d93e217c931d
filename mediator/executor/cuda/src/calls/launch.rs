//! Launches, functions and occupancy.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cuda_api::CuResult;
use cuda_api::calls::launch::Host;
use cuda_api::host::{Access, Base};
use cuda_api::types::*;

use crate::Cuda;
use crate::driver::{LaunchAttribute, LaunchConfig, Raw};
use crate::graphs::STATUS_NONE;
use crate::objects::{Event, Function};
use crate::session::StreamUse;
use crate::thread::Thread;

/// A CUlaunchAttribute travels as its bytes: the number, 4 bytes of padding, 64 bytes of value.
const ATTRIBUTE_BYTES: usize = size_of::<LaunchAttribute>();
/// Attributes of a launch at most; CUDA 13.0 knows 17.
const ATTRIBUTES_MAX: usize = 64;

const ACCESS_POLICY_WINDOW: u32 = 1;
const COOPERATIVE: u32 = 2;
const PROGRAMMATIC_EVENT: u32 = 7;
const LAUNCH_COMPLETION_EVENT: u32 = 12;
/// Device-updatable nodes.
const DEVICE_UPDATABLE: u32 = 13;

/// CU_LAUNCH_PARAM_BUFFER_POINTER, …_BUFFER_SIZE and …_END.
const PARAM_POINTER: *mut c_void = std::ptr::without_provenance_mut(1);
const PARAM_SIZE: *mut c_void = std::ptr::without_provenance_mut(2);
const PARAM_END: *mut c_void = std::ptr::null_mut();

/// A launch's attributes as the driver takes them, and the events in them, kept alive.
#[derive(Default)]
struct Attributes {
    records: Vec<LaunchAttribute>,
    _events: Vec<Arc<Event>>,
}

/// What is to be done with an attribute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Numbers only: it passes.
    Pass,
    /// It begins with an address and a length.
    Range,
    /// It begins with an event.
    Event,
    /// It answers a handle, and is not carried.
    Refuse,
    /// Driver 580 knows none of this number.
    Unknown,
}

pub(crate) fn treatment(number: u32) -> Treatment {
    match number {
        // Ignore; cooperative; synchronisation policy; cluster dimension and scheduling; programmatic serialisation;
        // priority; memory synchronisation domains; preferred cluster dimension; carve-out; NVLink-centric scheduling.
        0 | COOPERATIVE | 3..=6 | 8..=11 | 14 | 16 => Treatment::Pass,
        ACCESS_POLICY_WINDOW => Treatment::Range,
        PROGRAMMATIC_EVENT | LAUNCH_COMPLETION_EVENT => Treatment::Event,
        DEVICE_UPDATABLE => Treatment::Refuse,
        _ => Treatment::Unknown,
    }
}

fn records(attributes: &[u8]) -> CuResult<Vec<LaunchAttribute>> {
    let (records, rest) = attributes.as_chunks::<ATTRIBUTE_BYTES>();
    if !rest.is_empty() || records.len() > ATTRIBUTES_MAX {
        return Err(CUresult::INVALID_VALUE);
    }
    let words = |record: &[u8; ATTRIBUTE_BYTES]| {
        let mut words: LaunchAttribute = [0; 9];
        for (to, from) in words.iter_mut().zip(record.as_chunks::<8>().0) {
            *to = u64::from_ne_bytes(*from);
        }
        words
    };
    Ok(records.iter().map(words).collect())
}

impl Cuda {
    fn attributes(&self, attributes: &[u8]) -> CuResult<Attributes> {
        let mut found = Attributes { records: records(attributes)?, _events: Vec::new() };
        for record in &mut found.records {
            let [number, first, second, ..] = record;
            let number = u32::try_from(*number & 0xffff_ffff).map_err(|_| CUresult::INVALID_VALUE)?;
            match treatment(number) {
                Treatment::Pass => {}
                Treatment::Range => self.check_range(*first, *second, Access::Read)?,
                Treatment::Event => {
                    let event = self.event(CUevent(*first))?;
                    *first = event.raw as u64;
                    found._events.push(event);
                }
                Treatment::Refuse => {
                    self.warn_once(&format!("launch attribute {number} is not supported"));
                    return Err(CUresult::NOT_SUPPORTED);
                }
                Treatment::Unknown => return Err(CUresult::INVALID_VALUE),
            }
        }
        Ok(found)
    }

    fn config(
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: &StreamUse,
        attributes: &Attributes,
    ) -> LaunchConfig {
        LaunchConfig {
            grid,
            block,
            shared_bytes,
            stream: stream.raw,
            attributes: attributes.records.as_ptr(),
            attribute_count: u32::try_from(attributes.records.len()).unwrap_or(0),
        }
    }

    fn launch_with(
        &self,
        thread: &Thread,
        function: &Function,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: &StreamUse,
        attributes: &Attributes,
        params: &[u8],
    ) -> CuResult<()> {
        let config = Self::config(grid, block, shared_bytes, stream, attributes);
        self.with_params(thread, function, stream.raw, params, |list, extra| {
            // SAFETY: configuration and attributes are locals that outlive the call, the parameters by `with_params`.
            unsafe { self.driver.cuLaunchKernelEx(&raw const config, function.raw, list, extra) }
        })
    }

    /// Launches with parameters: a list of pointers to each or, which is quicker, one buffer. A captured kernel's node tells them in
    /// the form in which they came, so there it is the list, which is what programs give. Both are as long as the kernel's parameters,
    /// and outlive the launch.
    fn with_params(
        &self,
        thread: &Thread,
        function: &Function,
        stream: Raw,
        params: &[u8],
        launch: impl FnOnce(*mut *mut c_void, *mut *mut c_void) -> CuResult<()>,
    ) -> CuResult<()> {
        let launch = |list, extra| self.watched(thread, stream, || launch(list, extra));
        let mut size = params_size(function, params)?;
        let none = std::ptr::null_mut();
        if params.is_empty() {
            return launch(none, none);
        }
        let captures =
            || self.driver.cuStreamIsCapturing(stream).is_ok_and(|(status,)| status != STATUS_NONE);
        if self.captures.load(Ordering::Relaxed) != 0 && captures() {
            let mut list: Vec<*mut c_void> = Vec::new();
            for place in self.layout(function) {
                let (from, size) = (place.offset as usize, place.size as usize);
                let param = from.checked_add(size).and_then(|to| params.get(from..to));
                list.push(param.ok_or(CUresult::INVALID_VALUE)?.as_ptr().cast_mut().cast());
            }
            if !list.is_empty() {
                return launch(list.as_mut_ptr(), none);
            }
        }
        launch(none, extra(params, &mut size).as_mut_ptr())
    }
}

/// The number is an attribute's: the driver crashes at -1.
pub(crate) fn check_attribute(number: i32) -> CuResult<()> {
    let known = usize::try_from(number).is_ok_and(|number| number < func_attribute::COUNT);
    if known { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// An enumerator that the driver takes for a signed number, and may look up in a table: a negative one never reaches it.
pub(crate) fn enumerator(value: u32) -> CuResult<u32> {
    if i32::try_from(value).is_ok() { Ok(value) } else { Err(CUresult::INVALID_VALUE) }
}

/// The parameter buffer is exactly the kernel's.
pub(crate) fn params_size(function: &Function, params: &[u8]) -> CuResult<usize> {
    let expected = usize::try_from(function.param_bytes).map_err(|_| CUresult::INVALID_VALUE)?;
    if params.len() == expected { Ok(expected) } else { Err(CUresult::INVALID_VALUE) }
}

/// The parameters as one buffer: valid while `params` and `size` are.
pub(crate) fn extra(params: &[u8], size: &mut usize) -> [*mut c_void; 5] {
    let at: *const u8 = params.as_ptr();
    [PARAM_POINTER, at.cast_mut().cast(), PARAM_SIZE, std::ptr::from_mut(size).cast(), PARAM_END]
}

impl Host for Cuda {
    fn cuLaunchKernel(
        &self,
        thread: &mut Thread,
        f: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: CUstream,
        params: &[u8],
    ) -> CuResult<()> {
        let (function, stream) = (self.function(f)?, self.stream(stream)?);
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        let raw = function.raw;
        self.with_params(thread, &function, stream.raw, params, |list, extra| {
            // SAFETY: the parameters outlive the call by `with_params`, and the call copies them.
            unsafe {
                self.driver.cuLaunchKernel(raw, gx, gy, gz, bx, by, bz, shared_bytes, stream.raw, list, extra)
            }
        })
    }

    fn cuLaunchKernelEx(
        &self,
        thread: &mut Thread,
        f: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: CUstream,
        attributes: &[u8],
        params: &[u8],
    ) -> CuResult<()> {
        let (function, stream) = (self.function(f)?, self.stream(stream)?);
        let attributes = self.attributes(attributes)?;
        self.launch_with(thread, &function, grid, block, shared_bytes, &stream, &attributes, params)
    }

    fn cuLaunchCooperativeKernel(
        &self,
        thread: &mut Thread,
        f: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: CUstream,
        params: &[u8],
    ) -> CuResult<()> {
        let (function, stream) = (self.function(f)?, self.stream(stream)?);
        let cooperative = [u64::from(COOPERATIVE), 1, 0, 0, 0, 0, 0, 0, 0];
        let attributes = Attributes { records: vec![cooperative], _events: Vec::new() };
        self.launch_with(thread, &function, grid, block, shared_bytes, &stream, &attributes, params)
    }

    fn cuFuncSetAttribute(
        &self,
        thread: &mut Thread,
        hfunc: CUfunction,
        attrib: i32,
        value: i32,
    ) -> CuResult<FunctionInfo> {
        let function = self.function(hfunc)?;
        check_attribute(attrib)?;
        self.driver.cuFuncSetAttribute(function.raw, attrib, value)?;
        Ok(function.info(self.driver, thread.device()))
    }

    fn cuFuncSetCacheConfig(&self, _: &mut Thread, hfunc: CUfunction, config: u32) -> CuResult<()> {
        self.driver.cuFuncSetCacheConfig(self.function(hfunc)?.raw, enumerator(config)?)
    }

    fn cuFuncSetSharedMemConfig(&self, _: &mut Thread, hfunc: CUfunction, config: u32) -> CuResult<()> {
        self.driver.cuFuncSetSharedMemConfig(self.function(hfunc)?.raw, enumerator(config)?)
    }

    fn cuFuncIsLoaded(&self, _: &mut Thread, function: CUfunction) -> CuResult<u32> {
        self.driver.cuFuncIsLoaded(self.function(function)?.raw).map(|(state,)| state)
    }

    fn cuFuncLoad(&self, _: &mut Thread, function: CUfunction) -> CuResult<()> {
        self.driver.cuFuncLoad(self.function(function)?.raw)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        &self,
        _: &mut Thread,
        func: CUfunction,
        block_size: i32,
        shared_bytes: usize,
    ) -> CuResult<i32> {
        let raw = self.function(func)?.raw;
        let found = self.driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(raw, block_size, shared_bytes);
        found.map(|(blocks,)| blocks)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        &self,
        _: &mut Thread,
        func: CUfunction,
        block_size: i32,
        shared_bytes: usize,
        flags: u32,
    ) -> CuResult<i32> {
        let raw = self.function(func)?.raw;
        let driver = self.driver;
        driver
            .cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(raw, block_size, shared_bytes, flags)
            .map(|(blocks,)| blocks)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        &self,
        _: &mut Thread,
        func: CUfunction,
        num_blocks: i32,
        block_size: i32,
    ) -> CuResult<usize> {
        let raw = self.function(func)?.raw;
        // The driver divides by both.
        if num_blocks <= 0 || block_size <= 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let found = self.driver.cuOccupancyAvailableDynamicSMemPerBlock(raw, num_blocks, block_size);
        found.map(|(bytes,)| bytes)
    }

    fn cuOccupancyMaxPotentialClusterSize(
        &self,
        _: &mut Thread,
        func: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        attributes: &[u8],
    ) -> CuResult<i32> {
        let function = self.function(func)?;
        let attributes = self.attributes(attributes)?;
        // As below, the stream does not travel.
        let stream = self.stream(STREAM_DEFAULT)?;
        let config = Self::config(grid, block, shared_bytes, &stream, &attributes);
        // SAFETY: configuration and attributes are locals that outlive the call.
        let found =
            unsafe { self.driver.cuOccupancyMaxPotentialClusterSize(function.raw, &raw const config) };
        found.map(|(size,)| size)
    }

    fn cuOccupancyMaxActiveClusters(
        &self,
        _: &mut Thread,
        func: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        attributes: &[u8],
    ) -> CuResult<i32> {
        let function = self.function(func)?;
        let attributes = self.attributes(attributes)?;
        // The configuration's stream does not matter here, and does not travel.
        let stream = self.stream(STREAM_DEFAULT)?;
        let config = Self::config(grid, block, shared_bytes, &stream, &attributes);
        // SAFETY: configuration and attributes are locals that outlive the call.
        let found = unsafe { self.driver.cuOccupancyMaxActiveClusters(function.raw, &raw const config) };
        found.map(|(clusters,)| clusters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_with_addresses_or_handles_do_not_pass_as_they_are() {
        assert_eq!(treatment(1), Treatment::Range);
        assert_eq!((treatment(7), treatment(12)), (Treatment::Event, Treatment::Event));
        assert_eq!(treatment(13), Treatment::Refuse);
        for number in [15, 17, 63, u32::MAX] {
            assert_eq!(treatment(number), Treatment::Unknown, "{number}");
        }
        for number in [0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 14, 16] {
            assert_eq!(treatment(number), Treatment::Pass, "{number}");
        }
    }

    #[test]
    fn numbers_that_crash_the_driver_do_not_reach_it() {
        for number in [i32::MIN, -1, 16, i32::MAX] {
            assert_eq!(check_attribute(number), Err(CUresult::INVALID_VALUE), "{number}");
        }
        assert!((0..16).all(|number| check_attribute(number).is_ok()));
        assert_eq!((enumerator(4), enumerator(u32::MAX)), (Ok(4), Err(CUresult::INVALID_VALUE)));
    }

    #[test]
    fn records_are_whole() {
        let mut bytes = vec![0u8; 2 * ATTRIBUTE_BYTES];
        bytes[ATTRIBUTE_BYTES] = 6;
        bytes[ATTRIBUTE_BYTES + 8] = 1;
        let read = records(&bytes).unwrap();
        assert_eq!((read.len(), read[1][0], read[1][1]), (2, 6, 1));
        assert_eq!(records(&bytes[1..]).unwrap_err(), CUresult::INVALID_VALUE);
        assert_eq!(records(&vec![0; 65 * ATTRIBUTE_BYTES]).unwrap_err(), CUresult::INVALID_VALUE);
    }
}
