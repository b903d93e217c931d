//! Kernel launch. A launch is posted where nothing is left that the driver could refuse at once: the grid and the shared memory are
//! within the function's limits, and the driver has launched the function in this configuration before ([`Configuration`]).
//! Any other waits for the driver's own answer: the first one of a configuration, and one that is beyond a limit.

use std::ffi::c_void;

use cuda_api::calls::launch::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUfunction, CUstream, Handle as _, func_attribute};
use cuda_api::{CUresult, CuResult};

use crate::function::{self, FunctionRecord};
use crate::gate::{self, Limits};

/// A launch's shape.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// What of a launch the driver judges by more than the limits checked in [`Shape::fits`]: register use and the sizes that the code
/// was compiled for depend on the block; with attributes, clusters depend on them and the shared memory as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Configuration {
    /// Not 0, and another for every configuration, or so improbably the same that it does not happen (a 64-bit hash).
    key: u64,
    /// The grid is a multiple of this.
    cluster: [u32; 3],
}

impl Configuration {
    /// `None` where a launch of before proves nothing about the next: attributes with pointers or handles in them, or unknown ones.
    #[inline]
    fn of(shape: &Shape, attributes: &[u8]) -> Option<Self> {
        // The limits leave 11, 11 and 7 bits of the block; the top bit is never set here and always in a hash.
        let [x, y, z] = shape.block.map(u64::from);
        if (x | y) >> 16 != 0 || z >> 16 != 0 {
            return None;
        }
        let block = x | y << 16 | z << 32 | 1 << 62;
        if attributes.is_empty() {
            return Some(Configuration { key: block, cluster: [1; 3] });
        }
        Self::with_attributes(block, shape.shared_bytes, attributes)
    }

    /// The same on one of several devices.
    #[inline]
    fn on(self, device: i32) -> Self {
        // Bits 48 to 53 of a plain key are 0, and a hash is as good with some of its bits turned.
        Configuration { key: self.key ^ u64::from(device as u32 & 0x3f) << 48, ..self }
    }

    fn with_attributes(block: u64, shared_bytes: u32, attributes: &[u8]) -> Option<Self> {
        let mut cluster = [1u32; 3];
        // FNV-1a, by words.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        mix(block);
        mix(u64::from(shared_bytes));
        for attribute in attributes.chunks_exact(ATTRIBUTE_BYTES) {
            let word = |i: usize| u32::from_ne_bytes(std::array::from_fn(|b| attribute[i * 4 + b]));
            let number = word(0);
            // How many words of the value the attribute has (CUlaunchAttributeValue); the rest of the union is whatever was there.
            let words = match number {
                ATTRIBUTE_IGNORE => 0,
                ATTRIBUTE_COOPERATIVE if word(2) == 0 => 1,
                // Synchronisation policy, cluster scheduling, programmatic serialisation, priority, memory domain, carve-out.
                3 | 5 | 6 | 8 | 10 | 14 => 1,
                // Cluster dimensions, and the preferred ones.
                4 | 11 => 3,
                _ => return None,
            };
            mix(u64::from(number));
            (0..words).for_each(|i| mix(u64::from(word(2 + i))));
            if number == 4 {
                cluster = [word(2), word(3), word(4)];
            }
            if number == 11 && [word(2), word(3), word(4)].contains(&0) {
                return None;
            }
        }
        Some(Configuration { key: hash | 1 << 63, cluster })
    }
}

impl Shape {
    /// Within the device's and the function's limits. Where not, the driver says how.
    #[inline]
    fn fits(&self, record: &FunctionRecord, device: i32, limits: &Limits, cluster: [u32; 3]) -> bool {
        let attribute = |number: usize| {
            record.attribute_on(device, number as i32).ok().and_then(|v| u64::try_from(v).ok()).unwrap_or(0)
        };
        // A kernel compiled for clusters of one size has its dimensions here, any other 0.
        let required = [
            func_attribute::REQUIRED_CLUSTER_WIDTH,
            func_attribute::REQUIRED_CLUSTER_HEIGHT,
            func_attribute::REQUIRED_CLUSTER_DEPTH,
        ]
        .map(attribute);
        let threads = self.block.iter().map(|d| u64::from(*d)).product::<u64>();
        (0..3).all(|i| {
            (1..=limits.grid[i]).contains(&self.grid[i])
                && (1..=limits.block[i]).contains(&self.block[i])
                && self.grid[i].checked_rem(cluster[i]) == Some(0)
                && u64::from(self.grid[i]).checked_rem(required[i]).unwrap_or(0) == 0
        }) && threads <= attribute(func_attribute::MAX_THREADS_PER_BLOCK)
            && u64::from(self.shared_bytes) <= attribute(func_attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES)
    }
}

/// How a launch travels.
pub enum Way<'a> {
    /// As it is.
    Plain,
    /// With attributes.
    Attributes(&'a [u8]),
    /// Cooperatively, without other attributes.
    Cooperative,
}

/// Launches a function.
///
/// # Errors
/// What the driver answers, or what is known here to be refused.
///
/// # Safety
/// `params` and `extra` are what CUDA's documentation of cuLaunchKernel says.
#[inline]
pub unsafe fn launch(
    f: CUfunction,
    shape: Shape,
    stream: CUstream,
    params: *const *const u8,
    extra: *const *const u8,
    way: &Way<'_>,
) -> CuResult<()> {
    gate::with_ring(|process, lane| {
        process.alive()?;
        if f.is_null() {
            return Err(CUresult::INVALID_HANDLE);
        }
        lane.needs_context()?;
        let context = lane.context;
        let stream_is_here = if CUstream::SPECIAL.contains(&stream.0) {
            true
        } else {
            process.objects.streams.context_of(stream.0).ok_or(CUstream::INVALID)? == context
        };
        let (limits, owner, device) =
            (lane.state.place.limits, lane.state.place.owner, lane.state.place.device);
        let mut buffer = function::params_buffer(lane.state);
        let outcome = (|| {
            let record = function::find_remembered(process, &mut lane.state.functions, f.0)?;
            // SAFETY: this function's contract is the callee's.
            unsafe { function::lay_out(&mut buffer, record, params, extra) }?;
            let Shape { grid, block, shared_bytes } = shape;
            let configuration = match way {
                Way::Plain => Configuration::of(&shape, &[]),
                Way::Attributes(attributes) => Configuration::of(&shape, attributes),
                Way::Cooperative => None,
            };
            // A kernel is launched on whichever device is current: what one has taken proves nothing of another.
            let configuration = configuration.map(|c| if record.context == 0 { c.on(device) } else { c });
            // In another context than the stream's the driver refuses the function.
            let is_here = stream_is_here && (record.context == 0 || record.context == owner);
            let post = is_here
                && configuration.is_some_and(|c| {
                    record.is_proven(c.key) && shape.fits(record, device, &limits, c.cluster)
                });
            match way {
                Way::Plain => {
                    let fields = (f, grid, block, shared_bytes, stream, &*buffer);
                    if post {
                        return lane.post_in::<row::cuLaunchKernel>(stream, &fields);
                    }
                    lane.call::<row::cuLaunchKernel>(&fields, false)
                }
                Way::Attributes(attributes) => {
                    let fields = (f, grid, block, shared_bytes, stream, *attributes, &*buffer);
                    if post {
                        return lane.post_in::<row::cuLaunchKernelEx>(stream, &fields);
                    }
                    lane.call::<row::cuLaunchKernelEx>(&fields, false)
                }
                Way::Cooperative => lane.call::<row::cuLaunchCooperativeKernel>(
                    &(f, grid, block, shared_bytes, stream, &buffer),
                    false,
                ),
            }?;
            if let Some(configuration) = configuration {
                function::find_remembered(process, &mut lane.state.functions, f.0)?.prove(configuration.key);
            }
            Ok(())
        })();
        lane.state.params = buffer;
        outcome
    })
}

/// cuLaunchKernel.
pub unsafe fn cuLaunchKernel(
    f: CUfunction,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { launch(f, shape, stream, params.cast(), extra.cast(), &Way::Plain) })
}

/// cuLaunchCooperativeKernel.
pub unsafe fn cuLaunchCooperativeKernel(
    f: CUfunction,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: CUstream,
    params: *mut *mut c_void,
) -> CUresult {
    let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { launch(f, shape, stream, params.cast(), std::ptr::null(), &Way::Cooperative) })
}

/// CUlaunchConfig.
#[repr(C)]
pub struct LaunchConfig {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    stream: CUstream,
    attributes: *const u8,
    attribute_count: u32,
}

/// Bytes of a CUlaunchAttribute: number, padding, 64 bytes of value.
const ATTRIBUTE_BYTES: usize = 72;
/// Attributes that one launch may have. CUDA 13.0 knows 17 of them.
const ATTRIBUTES_MAX: u32 = 64;
/// CU_LAUNCH_ATTRIBUTE_IGNORE.
const ATTRIBUTE_IGNORE: u32 = 0;
/// CU_LAUNCH_ATTRIBUTE_COOPERATIVE.
const ATTRIBUTE_COOPERATIVE: u32 = 2;
/// CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE: a handle comes back.
const ATTRIBUTE_DEVICE_UPDATABLE: u32 = 13;

/// A launch's configuration, and the bytes of its attributes.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE for NULL or too many attributes; CUDA_ERROR_NOT_SUPPORTED for one that is not carried.
///
/// # Safety
/// `config` is NULL or a CUlaunchConfig whose attributes are as many as it says.
pub unsafe fn read_config(config: *const c_void) -> CuResult<(LaunchConfig, &'static [u8])> {
    not_null(config.cast_mut())?;
    // SAFETY: not NULL; a CUlaunchConfig by this function's contract.
    let config = unsafe { config.cast::<LaunchConfig>().read_unaligned() };
    if config.attribute_count > ATTRIBUTES_MAX || (config.attributes.is_null() && config.attribute_count != 0)
    {
        return Err(CUresult::INVALID_VALUE);
    }
    let attributes = if config.attribute_count == 0 {
        &[][..]
    } else {
        // SAFETY: that many records by the caller's word; they live until the call returns, and nothing keeps the slice longer.
        unsafe {
            std::slice::from_raw_parts(config.attributes, config.attribute_count as usize * ATTRIBUTE_BYTES)
        }
    };
    for attribute in attributes.chunks_exact(ATTRIBUTE_BYTES) {
        let number = u32::from_ne_bytes([attribute[0], attribute[1], attribute[2], attribute[3]]);
        if let Some(event) = attribute.get(8..16).and_then(|bytes| bytes.try_into().ok()) {
            crate::waiting::recorded_by_a_launch(number, u64::from_ne_bytes(event));
        }
        if number == ATTRIBUTE_DEVICE_UPDATABLE {
            crate::log::once("launch attribute 13", || {
                "launch attribute 13 (device-updatable node) is not supported".into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
    }
    Ok((config, attributes))
}

/// The attributes ask for a cooperative launch and for nothing else: what cuLaunchCooperativeKernel is.
fn is_cooperative_only(attributes: &[u8]) -> bool {
    let word = |a: &[u8], i: usize| u32::from_ne_bytes(std::array::from_fn(|b| a[i * 4 + b]));
    let mut cooperative = false;
    for attribute in attributes.chunks_exact(ATTRIBUTE_BYTES) {
        match word(attribute, 0) {
            ATTRIBUTE_IGNORE => {}
            ATTRIBUTE_COOPERATIVE => cooperative = word(attribute, 2) != 0,
            _ => return false,
        }
    }
    cooperative
}

/// cuLaunchKernelEx.
pub unsafe fn cuLaunchKernelEx(
    config: *const c_void,
    f: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    finish((|| {
        // SAFETY: CUDA's contract with the caller.
        let (config, attributes) = unsafe { read_config(config) }?;
        let shape = Shape { grid: config.grid, block: config.block, shared_bytes: config.shared_bytes };
        let stream = if crate::thread::default_stream() == cuda_api::types::STREAM_PER_THREAD {
            crate::exports::PerThread::per_thread(config.stream)
        } else {
            config.stream
        };
        let way = if attributes.is_empty() {
            Way::Plain
        } else if is_cooperative_only(attributes) {
            Way::Cooperative
        } else {
            Way::Attributes(attributes)
        };
        // SAFETY: CUDA's contract with the caller.
        unsafe { launch(f, shape, stream, params.cast(), extra.cast(), &way) }
    })())
}

/// cuOccupancyMaxActiveClusters.
pub unsafe fn cuOccupancyMaxActiveClusters(
    clusters: *mut i32,
    f: CUfunction,
    config: *const c_void,
) -> CUresult {
    finish((|| {
        let process = crate::process::initialised()?;
        not_null(clusters)?;
        process.objects.check(f)?;
        // SAFETY: CUDA's contract with the caller.
        let (config, attributes) = unsafe { read_config(config) }?;
        let found = gate::call::<row::cuOccupancyMaxActiveClusters>((
            f,
            config.grid,
            config.block,
            config.shared_bytes,
            attributes,
        ))?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { clusters.write(found) };
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { grid: [4, 1, 1], block: [128, 2, 1], shared_bytes: 0 };

    /// A launch attribute with the words of its value; the rest of the union is `rest`.
    fn attribute(number: u32, value: &[u32], rest: u8) -> Vec<u8> {
        let mut bytes = [number.to_ne_bytes(), [0; 4]].concat();
        value.iter().for_each(|v| bytes.extend(v.to_ne_bytes()));
        bytes.resize(ATTRIBUTE_BYTES, rest);
        bytes
    }

    #[test]
    fn configurations_differ_where_the_driver_could() {
        let of = |shape, attributes: &[u8]| Configuration::of(&shape, attributes).map(|c| c.key);
        let plain = of(SHAPE, &[]);
        assert!(plain.is_some_and(|k| k != 0));
        assert_eq!(of(Shape { grid: [9, 9, 9], ..SHAPE }, &[]), plain, "the grid's limits are known");
        assert_ne!(of(Shape { block: [2, 128, 1], ..SHAPE }, &[]), plain);
        assert_eq!(of(Shape { block: [1 << 16, 1, 1], ..SHAPE }, &[]), None);
        let pdl = attribute(6, &[1], 0);
        assert_ne!(of(SHAPE, &pdl), plain);
        assert_eq!(
            of(SHAPE, &attribute(6, &[1], 0xee)),
            of(SHAPE, &pdl),
            "only the attribute's own words count"
        );
        assert_ne!(of(SHAPE, &attribute(6, &[0], 0)), of(SHAPE, &pdl));
        let cluster = attribute(4, &[2, 1, 1], 0);
        assert_eq!(Configuration::of(&SHAPE, &cluster).map(|c| c.cluster), Some([2, 1, 1]));
        assert_ne!(of(SHAPE, &cluster), of(SHAPE, &attribute(4, &[1, 2, 1], 0)));
        assert_ne!(of(Shape { shared_bytes: 8, ..SHAPE }, &cluster), of(SHAPE, &cluster));
        for number in [1, 7, 12, 250] {
            assert_eq!(of(SHAPE, &attribute(number, &[1], 0)), None, "{number}");
        }
    }

    #[test]
    fn a_cooperative_launch_keeps_its_other_attributes() {
        let (cooperative, not) = (attribute(2, &[1], 0), attribute(2, &[0], 0));
        assert!(is_cooperative_only(&cooperative));
        assert!(is_cooperative_only(&[attribute(0, &[], 7), cooperative.clone()].concat()));
        assert!(!is_cooperative_only(&not));
        assert!(!is_cooperative_only(&[cooperative, attribute(4, &[2, 1, 1], 0)].concat()));
    }

    #[test]
    fn what_is_beyond_a_limit_is_not_posted() {
        let mut attributes = [0; func_attribute::COUNT];
        attributes[func_attribute::MAX_THREADS_PER_BLOCK] = 256;
        attributes[func_attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES] = 1000;
        let info = |attributes| cuda_api::types::FunctionInfo { attributes, valid: u32::MAX, param_bytes: 0 };
        let record = FunctionRecord::new(0, 0, Default::default(), &info(attributes), Vec::new()).unwrap();
        let limits = Limits { grid: [100, 10, 10], block: [1024, 1024, 64] };
        let fits = |shape: Shape, cluster| shape.fits(&record, 0, &limits, cluster);
        assert!(fits(SHAPE, [1; 3]) && fits(SHAPE, [2, 1, 1]));
        assert!(!fits(SHAPE, [3, 1, 1]) && !fits(SHAPE, [0, 1, 1]));
        for grid in [[0, 1, 1], [101, 1, 1], [1, 11, 1], [1, 1, 11]] {
            assert!(!fits(Shape { grid, ..SHAPE }, [1; 3]), "{grid:?}");
        }
        for block in [[0, 1, 1], [257, 1, 1], [16, 16, 2], [1, 1, 65]] {
            assert!(!fits(Shape { block, ..SHAPE }, [1; 3]), "{block:?}");
        }
        assert!(fits(Shape { shared_bytes: 1000, ..SHAPE }, [1; 3]));
        assert!(!fits(Shape { shared_bytes: 1001, ..SHAPE }, [1; 3]));
        attributes[func_attribute::REQUIRED_CLUSTER_WIDTH] = 3;
        record.update(&info(attributes));
        assert!(!fits(SHAPE, [1; 3]) && fits(Shape { grid: [6, 1, 1], ..SHAPE }, [1; 3]));
    }
}
