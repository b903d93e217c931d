//! The wheels' compiler and headers do what the other tests need of them. Needs a network the first time.

use std::process::Command;

use harness::nvrtc::compile;
use harness::wheels::Toolkit;

const SOURCE: &str = r#"
extern "C" __global__ void scale(float *data, float factor, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) data[index] *= factor;
}
"#;

#[test]
fn a_kernel_becomes_ptx_and_a_mistake_becomes_its_log() {
    for toolkit in [Toolkit::Cuda12, Toolkit::Cuda13] {
        let ptx = compile(toolkit, SOURCE, "compute_80", &[]).unwrap();
        assert!(ptx.contains(".target sm_80") && ptx.contains(".entry scale"), "{ptx}");
        let error =
            compile(toolkit, "__global__ void broken() { nonsense; }", "compute_80", &[]).unwrap_err();
        assert!(format!("{error:#}").contains("\"nonsense\" is undefined"), "{error:#}");
    }
}

#[test]
fn a_c_program_finds_the_headers_and_the_runtime() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("program.c");
    let text = "#include <cuda.h>\n#include <cuda_runtime_api.h>\n\
                int main(void) { int count = 0; return cudaGetDeviceCount(&count) == cudaSuccess; }\n";
    std::fs::write(&source, text).unwrap();
    for toolkit in [Toolkit::Cuda12, Toolkit::Cuda13] {
        let mut compiler = Command::new("gcc");
        for folder in toolkit.include_folders().unwrap() {
            compiler.arg("-I").arg(folder);
        }
        let library = toolkit.runtime_library().unwrap();
        compiler.arg(&source).arg(&library).arg("-o").arg(place.path().join("program"));
        let done = compiler.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let header = if toolkit == Toolkit::Cuda12 { "libcudart.so.12" } else { "libcudart.so.13" };
        assert!(library.ends_with(header), "{}", library.display());
    }
}
