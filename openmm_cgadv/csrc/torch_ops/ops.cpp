// The core as operators of torch: torch.ops.cgadv.*
//
// Only the C functions of torch's stable ABI are used, so that one binary serves torch 2.9 and
// every later version. Arguments arrive as 64-bit cells: tensors as handles that are ours to
// release, numbers as their bits.

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "../core/errors.hpp"
#include "../kernels/choose.hpp"
#include "stable_abi.hpp"

namespace {

using Cell = StableIValue;

void check(AOTITorchError code, const char* what) {
  if (code != 0) throw std::runtime_error(std::string("torch could not ") + what);
}

class Tensor {
 public:
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {}
  Tensor(std::initializer_list<int64_t> sizes) {
    std::vector<int64_t> size(sizes), stride(size.size());
    int64_t step = 1;
    for (std::size_t d = size.size(); d-- > 0; step *= size[d]) stride[d] = step;
    if (aoti_torch_empty_strided(int64_t(size.size()), size.data(), stride.data(),
                                 aoti_torch_dtype_float64(), aoti_torch_device_type_cpu(), 0,
                                 &handle_) != 0)
      throw std::bad_alloc();
  }
  Tensor(Tensor&& o) noexcept : handle_(o.handle_) { o.handle_ = nullptr; }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }

  int64_t dim() const {
    int64_t d = 0;
    check(aoti_torch_get_dim(handle_, &d), "tell a tensor's rank");
    return d;
  }
  int64_t size(int64_t d) const {
    int64_t s = 0;
    check(aoti_torch_get_size(handle_, d, &s), "tell a tensor's size");
    return s;
  }
  int64_t numel() const {
    int64_t s = 0;
    check(aoti_torch_get_numel(handle_, &s), "tell a tensor's size");
    return s;
  }
  void* raw() const {
    void* p = nullptr;
    check(aoti_torch_get_data_ptr(handle_, &p), "tell a tensor's address");
    return p;
  }
  double* doubles() const { return static_cast<double*>(raw()); }
  int64_t* ints() const { return static_cast<int64_t*>(raw()); }

  // A contiguous CPU tensor of this type and number of elements, or an error that names it.
  const Tensor& expect(const char* name, int32_t dtype, int64_t elements) const {
    int32_t type = 0, device = 0;
    bool contiguous = false;
    check(aoti_torch_get_dtype(handle_, &type), "tell a tensor's type");
    check(aoti_torch_get_device_type(handle_, &device), "tell a tensor's device");
    check(aoti_torch_is_contiguous(handle_, &contiguous), "tell a tensor's layout");
    if (type != dtype || device != aoti_torch_device_type_cpu() || !contiguous)
      throw cgadv::InvalidInput(std::string(name) + " must be a contiguous CPU tensor of " +
                               (dtype == aoti_torch_dtype_int64() ? "int64" : "float64"));
    if (elements >= 0 && numel() != elements)
      throw cgadv::InvalidInput(std::string(name) + " has " + std::to_string(numel()) +
                               " elements, expected " + std::to_string(elements));
    return *this;
  }
  const double* read(const char* name, int64_t elements) const {
    return expect(name, aoti_torch_dtype_float64(), elements).doubles();
  }
  const int64_t* read_ints(const char* name, int64_t elements) const {
    return expect(name, aoti_torch_dtype_int64(), elements).ints();
  }
  Cell release() {
    Cell c = 0;
    std::memcpy(&c, &handle_, sizeof handle_);
    handle_ = nullptr;
    return c;
  }

 private:
  AtenTensorHandle handle_ = nullptr;
};

// Takes arguments off the stack in order.
class Arguments {
 public:
  explicit Arguments(Cell* stack) : next_(stack) {}
  Tensor tensor() { return Tensor(bits<AtenTensorHandle>()); }
  int64_t integer() { return bits<int64_t>(); }
  double real() { return bits<double>(); }
  bool boolean() { return bits<bool>(); }

 private:
  Cell* next_;
  template <class T>
  T bits() {
    T value;
    std::memcpy(&value, next_++, sizeof value);
    return value;
  }
};

template <class... T>
void give(Cell* stack, T&&... tensors) {
  const Cell cells[] = {tensors.release()...};
  std::memcpy(stack, cells, sizeof cells);
}

const cgadv::KernelTable& kernels() { return cgadv::kernels(); }

struct Potential {
  Tensor theta, ints, floats;
  // After args.
  mutable int64_t n_parameters = 0, n_types = 0;
  explicit Potential(Arguments& a) : theta(a.tensor()), ints(a.tensor()), floats(a.tensor()) {}

  cgadv::PotentialArgs args(int64_t replicas, bool single) const {
    cgadv::PotentialArgs p;
    p.ints = ints.read_ints("ispec", -1), p.n_ints = ints.numel();
    p.floats = floats.read("fspec", -1), p.n_floats = floats.numel();
    p.single_precision = single;
    const int64_t P = n_parameters = kernels().n_parameters(p, &n_types);
    const bool each = theta.dim() == 2 && theta.size(0) == replicas;
    p.theta = theta.read("theta", each ? replicas * P : P);
    p.theta_stride = each ? P : 0;
    return p;
  }
};

struct System {
  Tensor positions, boxes, types;
  explicit System(Arguments& a) : positions(a.tensor()), boxes(a.tensor()), types(a.tensor()) {}

  cgadv::SystemArgs args(int64_t threads) const {
    cgadv::SystemArgs s;
    if (positions.dim() < 2 || positions.dim() > 3 || positions.size(positions.dim() - 1) != 3)
      throw cgadv::InvalidInput("positions must have shape [N,3] or [B,N,3]");
    s.replicas = positions.dim() == 3 ? positions.size(0) : 1;
    s.n = positions.size(positions.dim() - 2);
    s.positions = positions.read("positions", -1);
    s.boxes = boxes.read("boxes", 9 * s.replicas);
    s.types = types.read_ints("types", s.n);
    s.threads = int(threads);
    return s;
  }
};

void value(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const bool want_theta = a.boolean(), single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(s.replicas, single);
  Tensor energy{s.replicas}, gradient{s.replicas, s.n, 3},
      d_theta{want_theta ? s.replicas : 0, potential.n_parameters};
  kernels().value(p, s, energy.doubles(), gradient.doubles(),
                  want_theta ? d_theta.doubles() : nullptr);
  give(stack, energy, gradient, d_theta);
}

// SystemEvaluators at rest between calls. One is taken out for the time of a call, so that two threads
// never share one; it checks its list against the positions it is given, so that whose positions
// they are does not matter.
class SystemEvaluators {
 public:
  struct Release {
    void operator()(cgadv::SystemEvaluator* f) const { kernels().release(f); }
  };
  struct Entry {
    std::vector<double> floats;
    std::vector<int64_t> ints;  // of the packed potential, whether single, types
    std::unique_ptr<cgadv::SystemEvaluator, Release> evaluator;
  };

  Entry take(const cgadv::PotentialArgs& p, const cgadv::SystemArgs& s) {
    Entry wanted;
    wanted.floats.assign(p.floats, p.floats + p.n_floats);
    wanted.ints.assign(p.ints, p.ints + p.n_ints);
    wanted.ints.push_back(p.single_precision);
    wanted.ints.insert(wanted.ints.end(), s.types, s.types + s.n);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (std::size_t k = resting_.size(); k-- > 0;)
        if (resting_[k].ints == wanted.ints && resting_[k].floats == wanted.floats) {
          Entry found = std::move(resting_[k]);
          resting_.erase(resting_.begin() + k);
          return found;
        }
    }
    wanted.evaluator.reset(kernels().make_evaluator(p, s.n, s.types, nullptr, 0));
    return wanted;
  }
  void rest(Entry entry) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (resting_.size() >= 16) resting_.erase(resting_.begin());
    resting_.push_back(std::move(entry));
  }
  void clear() {
    std::lock_guard<std::mutex> lock(mutex_);
    resting_.clear();
  }

 private:
  std::mutex mutex_;
  std::vector<Entry> resting_;
};

SystemEvaluators& evaluators() {
  static SystemEvaluators all;
  return all;
}

void energy_forces(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const bool single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(1, single);
  if (s.replicas != 1) throw cgadv::InvalidInput("positions must have shape [N,3]");
  Tensor energy{}, forces{s.n, 3};
  std::fill_n(forces.doubles(), 3 * s.n, 0.0);
  auto entry = evaluators().take(p, s);
  *energy.doubles() = kernels().evaluate(entry.evaluator.get(), p.theta, s.positions, s.boxes,
                                         s.threads, 1, forces.doubles());
  evaluators().rest(std::move(entry));
  give(stack, energy, forces);
}

void hvp(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const Tensor direction = a.tensor();
  const bool single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(s.replicas, single);
  const double* d = direction.read("direction", 3 * s.replicas * s.n);
  Tensor product{s.replicas, s.n, 3}, d_theta{s.replicas, potential.n_parameters};
  kernels().hvp(p, s, d, product.doubles(), d_theta.doubles());
  give(stack, product, d_theta);
}

void virial(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const bool single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(1, single);
  Tensor virial{s.replicas, 3, 3};
  kernels().virial(p, s, virial.doubles());
  give(stack, virial);
}

void basis_forces(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const auto s = system.args(a.integer());
  const auto p = potential.args(1, false);
  if (s.replicas != 1) throw cgadv::InvalidInput("positions must have shape [N,3]");
  Tensor forces{potential.n_parameters, s.n, 3};
  kernels().basis_forces(p, s, forces.doubles());
  give(stack, forces);
}

struct Dynamics {
  Tensor masses, E, S, frames;
  double kT, dt, forget;
  int64_t seed;
  explicit Dynamics(Arguments& a)
      : masses(a.tensor()), E(a.tensor()), S(a.tensor()), frames(a.tensor()), kT(a.real()),
        dt(a.real()), forget(a.real()), seed(a.integer()) {}

  cgadv::RolloutArgs args(const cgadv::SystemArgs& s) const {
    cgadv::RolloutArgs r;
    if (E.dim() != 3 || E.size(1) != E.size(2) || E.size(1) < 1)
      throw cgadv::InvalidInput("E must have shape [n_types,K+1,K+1]");
    r.extra = E.size(1) - 1;
    r.masses = masses.read("masses", s.n);
    r.E = E.read("E", -1);
    r.S = S.read("S", E.numel());
    r.frames = frames.read_ints("frames", -1);
    r.n_frames = frames.numel();
    for (int64_t f = 0; f < r.n_frames; ++f)
      if (r.frames[f] < 0 || (f > 0 && r.frames[f] <= r.frames[f - 1]))
        throw cgadv::InvalidInput("frames must be increasing step numbers from 0 on");
    r.kT = kT, r.dt = dt, r.forget = forget, r.seed = seed;
    return r;
  }
  static int64_t steps(const cgadv::RolloutArgs& r) {
    return r.n_frames ? r.frames[r.n_frames - 1] : 0;
  }
  void check_types(int64_t n_types) const {
    if (E.size(0) != n_types)
      throw cgadv::InvalidInput("E has matrices for " + std::to_string(E.size(0)) +
                               " types, the potential has " + std::to_string(n_types));
  }
};

void rollout(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const Tensor state = a.tensor();
  const Dynamics dynamics(a);
  const bool keep = a.boolean(), single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(1, single);
  const auto r = dynamics.args(s);
  dynamics.check_types(potential.n_types);
  const int64_t B = s.replicas, R = r.extra + 1, kept = keep ? Dynamics::steps(r) : 0;
  const double* s0 = state.read("state", B * s.n * R * 3);
  Tensor frames{B, r.n_frames, s.n, 3}, final_positions{B, s.n, 3}, final_state{B, s.n, R, 3},
      kept_positions{B, kept, 3, s.n}, kept_states{B, kept, R, 3, s.n};
  kernels().rollout(p, s, r, s0, frames.doubles(), final_positions.doubles(),
                    final_state.doubles(), keep ? kept_positions.doubles() : nullptr,
                    keep ? kept_states.doubles() : nullptr);
  give(stack, frames, final_positions, final_state, kept_positions, kept_states);
}

void rollout_backward(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const Dynamics dynamics(a);
  const Tensor kept_positions = a.tensor(), kept_states = a.tensor(), d_frames = a.tensor(),
               d_final_positions = a.tensor(), d_final_state = a.tensor();
  const bool single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(1, single);
  const auto r = dynamics.args(s);
  dynamics.check_types(potential.n_types);
  const int64_t B = s.replicas, R = r.extra + 1, steps = Dynamics::steps(r), n3 = 3 * s.n;
  const double* kx = kept_positions.read("kept positions", B * steps * n3);
  const double* ks = kept_states.read("kept states", B * steps * R * n3);
  const double* df = d_frames.read("gradient of frames", B * r.n_frames * n3);
  const double* dx = d_final_positions.read("gradient of final positions", B * n3);
  const double* ds = d_final_state.read("gradient of final state", B * R * n3);
  Tensor gx{B, s.n, 3}, gs{B, s.n, R, 3}, gt{potential.n_parameters}, gE{dynamics.E.size(0), R, R},
      gS{dynamics.E.size(0), R, R};
  kernels().rollout_backward(p, s, r, kx, ks, df, dx, ds, gx.doubles(), gs.doubles(),
                             gt.doubles(), gE.doubles(), gS.doubles());
  give(stack, gx, gs, gt, gE, gS);
}

void noise(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const int64_t seed = a.integer(), replica = a.integer(), first = a.integer(),
                steps = a.integer(), n = a.integer(), extra = a.integer();
  Tensor out{steps, n, extra + 1, 3};
  kernels().noise(seed, replica, first, steps, n, 3 * (extra + 1), out.doubles());
  give(stack, out);
}

struct PairDynamics {
  Tensor masses, r_min, splines, memory, self, frames;
  double r_cut, kT, dt, tolerance, forget;
  int64_t seed;
  explicit PairDynamics(Arguments& a)
      : masses(a.tensor()), r_min(a.tensor()), splines(a.tensor()), memory(a.tensor()),
        self(a.tensor()), frames(a.tensor()), r_cut(a.real()), kT(a.real()), dt(a.real()), tolerance(a.real()),
        forget(a.real()), seed(a.integer()) {}

  cgadv::PairRolloutArgs args(int64_t n_types, const cgadv::SystemArgs& s) const {
    cgadv::PairRolloutArgs r;
    const int64_t kinds = n_types * (n_types + 1) / 2;
    if (splines.dim() != 4 || splines.size(0) != kinds || splines.size(1) < 1 ||
        splines.size(2) != 2)
      throw cgadv::InvalidInput("splines must have shape [n_type_pairs,K+1,2,n_basis]");
    r.extra = splines.size(1) - 1, r.n_basis = splines.size(3);
    r.masses = masses.read("masses", s.n);
    r.r_min = r_min.read("r_min", kinds);
    r.splines = splines.read("splines", -1);
    r.memory = memory.read("memory", kinds * r.extra * r.extra);
    r.self = self.read("self-friction", n_types);
    r.frames = frames.read_ints("frames", -1);
    r.n_frames = frames.numel();
    for (int64_t f = 0; f < r.n_frames; ++f)
      if (r.frames[f] < 0 || (f > 0 && r.frames[f] <= r.frames[f - 1]))
        throw cgadv::InvalidInput("frames must be increasing step numbers from 0 on");
    r.r_cut = r_cut, r.kT = kT, r.dt = dt, r.tolerance = tolerance, r.forget = forget;
    r.seed = seed;
    return r;
  }
  static int64_t kept(const cgadv::PairRolloutArgs& r) {
    return 2 * (r.n_frames ? r.frames[r.n_frames - 1] : 0) + 1;
  }
};

void pair_rollout(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const Tensor velocities = a.tensor();
  const PairDynamics dynamics(a);
  const bool keep = a.boolean(), single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(1, single);
  const auto r = dynamics.args(potential.n_types, s);
  const int64_t B = s.replicas;
  const double* v0 = velocities.read("velocities", B * s.n * 3);
  Tensor frames{B, r.n_frames, s.n, 3}, final_positions{B, s.n, 3}, final_velocities{B, s.n, 3},
      kept{B, keep ? PairDynamics::kept(r) : 0, 3, s.n};
  kernels().pair_rollout(p, s, r, v0, frames.doubles(), final_positions.doubles(),
                         final_velocities.doubles(), keep ? kept.doubles() : nullptr);
  give(stack, frames, final_positions, final_velocities, kept);
}

void pair_rollout_backward(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const System system(a);
  const Potential potential(a);
  const PairDynamics dynamics(a);
  const Tensor kept = a.tensor(), d_frames = a.tensor(), d_final_positions = a.tensor(),
               d_final_velocities = a.tensor();
  const bool single = a.boolean();
  const auto s = system.args(a.integer());
  const auto p = potential.args(1, single);
  const auto r = dynamics.args(potential.n_types, s);
  const int64_t B = s.replicas, n3 = 3 * s.n, K = r.extra, kinds = dynamics.splines.size(0);
  const double* k = kept.read("kept positions", B * PairDynamics::kept(r) * n3);
  const double* df = d_frames.read("gradient of frames", B * r.n_frames * n3);
  const double* dx = d_final_positions.read("gradient of final positions", B * n3);
  const double* dv = d_final_velocities.read("gradient of final velocities", B * n3);
  Tensor gx{B, s.n, 3}, gv{B, s.n, 3}, gt{potential.n_parameters}, gs{kinds, K + 1, 2, r.n_basis},
      gm{kinds, K, K};
  kernels().pair_rollout_backward(p, s, r, k, df, dx, dv, gx.doubles(), gv.doubles(), gt.doubles(),
                                  gs.doubles(), gm.doubles());
  give(stack, gx, gv, gt, gs, gm);
}

void pair_noise(Cell* stack, uint64_t, uint64_t) {
  Arguments a(stack);
  const int64_t seed = a.integer(), replica = a.integer(), step = a.integer();
  const Tensor beads = a.tensor();
  const int64_t count = a.integer();
  const bool fresh = a.boolean();
  const int64_t* ids = beads.read_ints("beads", -1);
  const int64_t pairs = beads.numel() / 2;
  Tensor out{pairs, count, 3};
  kernels().pair_noise(seed, replica, step, pairs, ids, fresh, 3 * count, out.doubles());
  give(stack, out);
}

// Of an operator: torch hands on the text of an exception alone, so the text begins with what
// openmm_cgadv/kernels/library.py makes an error of this package from.
template <Kernel* F>
void named(Cell* stack, uint64_t n_inputs, uint64_t n_outputs) {
  try {
    F(stack, n_inputs, n_outputs);
  } catch (const cgadv::Explosion& e) {
    throw std::runtime_error("ExplosionError[step=" + std::to_string(e.step) + " replica=" +
                             std::to_string(e.replica) + " bead=" + std::to_string(e.bead) +
                             "]: " + e.what());
  } catch (const cgadv::InvalidInput& e) {
    throw std::runtime_error(std::string("InputError[]: ") + e.what());
  } catch (const std::bad_alloc&) {
    throw std::runtime_error("OutOfMemoryError[]: no memory was left for a rollout or an energy");
  }
}

#define SYSTEM "Tensor positions, Tensor boxes, Tensor types, "
#define POTENTIAL "Tensor theta, Tensor ispec, Tensor fspec, "
#define DYNAMICS                                                                            \
  "Tensor masses, Tensor E, Tensor S, Tensor frames, float kT, float dt, float forget, int seed, "

#define PAIR_DYNAMICS                                                                          \
  "Tensor masses, Tensor r_min, Tensor splines, Tensor memory, Tensor self_friction, "         \
  "Tensor frames, float r_cut, float kT, float dt, float tolerance, float forget, int seed, "

struct Registration {
  TorchLibraryHandle schemas = nullptr, on_cpu = nullptr, anywhere = nullptr;

  Registration() {
    check(aoti_torch_library_init_def("cgadv", __FILE__, __LINE__, &schemas), "open a library");
    check(aoti_torch_library_init_impl("cgadv", "CPU", __FILE__, __LINE__, &on_cpu),
          "open a library");
    check(aoti_torch_library_init_impl("cgadv", "CompositeExplicitAutograd", __FILE__, __LINE__,
                                       &anywhere),
          "open a library");
    add("value(" SYSTEM POTENTIAL
        "bool want_theta, bool single, int threads) -> (Tensor, Tensor, Tensor)",
        "value", named<value>);
    add("energy_forces(" SYSTEM POTENTIAL "bool single, int threads) -> (Tensor, Tensor)",
        "energy_forces", named<energy_forces>);
    add("hvp(" SYSTEM POTENTIAL "Tensor direction, bool single, int threads) -> (Tensor, Tensor)",
        "hvp", named<hvp>);
    add("virial(" SYSTEM POTENTIAL "bool single, int threads) -> Tensor", "virial", named<virial>);
    add("basis_forces(" SYSTEM POTENTIAL "int threads) -> Tensor", "basis_forces", named<basis_forces>);
    add("rollout(" SYSTEM POTENTIAL "Tensor state, " DYNAMICS
        "bool keep, bool single, int threads) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        "rollout", named<rollout>);
    add("rollout_backward(" SYSTEM POTENTIAL DYNAMICS
        "Tensor kept_positions, Tensor kept_states, Tensor d_frames, Tensor d_final_positions, "
        "Tensor d_final_state, bool single, int threads) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        "rollout_backward", named<rollout_backward>);
    add("pair_rollout(" SYSTEM POTENTIAL "Tensor velocities, " PAIR_DYNAMICS
        "bool keep, bool single, int threads) -> (Tensor, Tensor, Tensor, Tensor)",
        "pair_rollout", named<pair_rollout>);
    add("pair_rollout_backward(" SYSTEM POTENTIAL PAIR_DYNAMICS
        "Tensor kept, Tensor d_frames, Tensor d_final_positions, Tensor d_final_velocities, "
        "bool single, int threads) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        "pair_rollout_backward", named<pair_rollout_backward>);
    add("pair_noise(int seed, int replica, int step, Tensor beads, int count, bool fresh) "
        "-> Tensor",
        "pair_noise", named<pair_noise>);
    define("noise(int seed, int replica, int first_step, int steps, int n, int extra) -> Tensor");
    check(aoti_torch_library_impl(anywhere, "noise", named<noise>), "register an operator");
  }
  ~Registration() {
    aoti_torch_delete_library_object(anywhere);
    aoti_torch_delete_library_object(on_cpu);
    aoti_torch_delete_library_object(schemas);
  }
  void define(const char* schema) {
    check(aoti_torch_library_def(schemas, schema), "define an operator");
  }
  void add(const char* schema, const char* name, Kernel* f) {
    define(schema);
    check(aoti_torch_library_impl(on_cpu, name, f), "register an operator");
  }
} registration;

}  // namespace

// Name of the chosen build, or null if none could be loaded.
extern "C" __attribute__((visibility("default"))) const char* cgadv_instruction_set() {
  try {
    return kernels().name;
  } catch (const std::exception&) {
    return nullptr;
  }
}

extern "C" __attribute__((visibility("default"))) const char* cgadv_compiler() {
#ifdef __clang__
  return __VERSION__;
#else
  return "GCC " __VERSION__;
#endif
}

extern "C" __attribute__((visibility("default"))) void cgadv_forget_lists() {
  evaluators().clear();
}
