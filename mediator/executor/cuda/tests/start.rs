//! What starts, and what is refused, on this machine: with a GPU and without.

use cuda_api::types::{CUresult, attribute};
use executor_cuda::{Config, Cuda, Services, Unavailable, preload, probe, start};

const QUOTA_BYTES: u64 = 1 << 30;

#[test]
fn the_machine_has_a_driver_or_the_reason_is_said() {
    let config = Config { memory_bytes: Some(QUOTA_BYTES) };
    match (preload(), probe(config)) {
        (Ok(()), Ok(info)) => {
            assert!(info.driver_version <= cuda_api::DRIVER_VERSION);
            for device in &info.devices {
                assert!(device.total_memory_bytes <= QUOTA_BYTES);
                assert_eq!(device.attribute(attribute::UNIFIED_ADDRESSING), Ok(1));
                assert_eq!(device.attribute(83), Ok(0), "managed memory");
                assert!(device.attribute(attribute::LAST + 1).is_err());
            }
            assert!(!info.devices.is_empty());
            // As in a worker that was initialised ahead.
            drop(Cuda::new(start(config).unwrap(), Services::default()));
        }
        // A driver, but no device of its own for this process, or one that is refused.
        (Ok(()), Err(Unavailable::Driver { call, result })) => {
            assert!(call.starts_with("cu") && result != CUresult::SUCCESS);
        }
        (Ok(()), Err(Unavailable::Device { reason, .. })) => assert!(!reason.is_empty()),
        (Err(error), Err(unavailable)) => {
            assert!(error.to_string().contains("libcuda.so.1"), "{error}");
            assert!(unavailable.to_string().contains("the NVIDIA driver's library"), "{unavailable}");
            assert!(matches!(start(config), Err(Unavailable::Load(_))));
        }
        (loaded, probed) => panic!("{loaded:?}, but {probed:?}"),
    }
}
