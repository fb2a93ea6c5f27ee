// The core behind a table of plain functions, so that a build for each instruction set can be
// chosen when the library is loaded. All arrays are contiguous doubles or int64.
#pragma once

#include <cstdint>
#include <vector>

namespace cgadv {

// First integer of a packed potential, see core/terms/packed.hpp; before, it was the number of bead
// types.
constexpr int64_t PACKED_FORMAT = -2;

struct PotentialArgs {
  const int64_t* ints;
  int64_t n_ints;
  const double* floats;
  int64_t n_floats;
  const double* theta;     // [P], or [B,P] when theta_stride is P
  int64_t theta_stride;
  bool single_precision;
};

struct SystemArgs {
  int64_t replicas, n;
  const double* positions;  // [B,n,3]
  const double* boxes;      // [B,3,3]
  const int64_t* types;     // [n]
  int threads;
};

struct RolloutArgs {
  const double* masses;  // [n]
  int64_t extra;         // K
  const double *E, *S;   // [n_types,K+1,K+1]
  const int64_t* frames;
  int64_t n_frames;
  double kT, dt, forget;
  int64_t seed;
};

struct PairFrictionArgs {
  int64_t extra, n_basis;
  double r_cut;
  const double* r_min;    // [n_kinds], pairs of types
  const double* splines;  // [n_kinds,K+1,2,n_basis]
  const double* memory;   // [n_kinds,K,K]
  const double* self;     // [n_types], friction of each bead
  double kT, dt, tolerance;
};

struct PairRolloutArgs : PairFrictionArgs {
  const double* masses;  // [n]
  const int64_t* frames;
  int64_t n_frames;
  double forget;
  int64_t seed;
};

// Beads that move: their places in arrays [.,3], in the order of types; those of type a are
// first[a] .. first[a + 1].
struct LangevinArgs {
  int64_t n;
  const int32_t* beads;   // [n]
  int64_t n_types;
  const int64_t* first;   // [n_types+1]
  const double* masses;   // [n]
  int64_t extra;          // K
  const double *E, *S;    // [n_types,K+1,K+1]
  double kT, dt;
  int64_t seed, step;
  int threads;
};

class SystemEvaluator;

// Beads that move with pairwise friction and that somebody else keeps, with the auxiliary variables
// of their pairs. Beads are numbered as they were given.
class PairStepper {
 public:
  virtual ~PairStepper() = default;
  // The friction from now on; the auxiliary variables stay.
  virtual void configure(const PairFrictionArgs&) = 0;
  // A step, with the noise of replica 0; positions, velocities and forces [.,3]. After an error
  // positions and velocities are what they were.
  virtual void step(int64_t seed, int64_t step, const double* box, int threads, double* positions,
                    double* velocities, const double* forces) = 0;
  // Pairs i < j [.,2] in range, in order, and their auxiliary variables [.,3 K].
  virtual void read(std::vector<int32_t>& beads, std::vector<double>& auxiliary) const = 0;
  // Sum of r_a p_b over pairs and the steps since the last call, r = x_i - x_j and p the momentum
  // that friction and noise gave to i; [3,3]. The first call begins to count.
  virtual void collect_moment(double* sums) = 0;
  // What comes next depends on these alone, to the last bit.
  virtual void write(const std::vector<int32_t>& beads, const std::vector<double>& auxiliary) = 0;
};

struct KernelTable {
  const char* name;
  // n_types may be null.
  int64_t (*n_parameters)(const PotentialArgs&, int64_t* n_types);
  // Outputs may be null. energy [B], gradient [B,n,3], d_theta [B,P].
  void (*value)(const PotentialArgs&, const SystemArgs&, double* energy, double* gradient,
                double* d_theta);
  // An evaluator knows one system along its trajectory and keeps its neighbour list from call to
  // call; one thread at a time may use it. exclusions [n_exclusions,2]: pairs of beads that are no
  // neighbours, neither in the pair term nor of a three-body term's centre.
  SystemEvaluator* (*make_evaluator)(const PotentialArgs&, int64_t n, const int64_t* types,
                      const int64_t* exclusions, int64_t n_exclusions);
  // Returns the energy and adds factor times the forces to forces [n,3]. theta [P] may change.
  double (*evaluate)(SystemEvaluator*, const double* theta, const double* positions, const double* box,
                     int threads, double factor, double* forces);
  // After it an evaluation is that of a new evaluator, to the last bit.
  void (*forget)(SystemEvaluator*);
  void (*release)(SystemEvaluator*);
  // direction [B,n,3] -> Hessian times direction [B,n,3], d(gradient . direction)/dtheta [B,P].
  void (*hvp)(const PotentialArgs&, const SystemArgs&, const double* direction, double* product,
              double* d_theta);
  // Of frames of one trajectory: sum over distances d of -d_a dU/dd_b, virial [B,3,3].
  void (*virial)(const PotentialArgs&, const SystemArgs&, double* virial);
  // Forces of each parameter's basis function [P,n,3] for one system.
  void (*basis_forces)(const PotentialArgs&, const SystemArgs&, double* forces);
  void (*rollout)(const PotentialArgs&, const SystemArgs&, const RolloutArgs&, const double* state,
                  double* frames, double* final_positions, double* final_state,
                  double* kept_positions, double* kept_states);
  void (*rollout_backward)(const PotentialArgs&, const SystemArgs&, const RolloutArgs&,
                           const double* kept_positions, const double* kept_states,
                           const double* d_frames, const double* d_final_positions,
                           const double* d_final_state, double* d_positions, double* d_state,
                           double* d_theta, double* dE, double* dS);
  // One step; positions, velocities and forces [.,3], auxiliary variables z [3 K,n].
  void (*langevin_step)(const LangevinArgs&, double* positions, double* velocities,
                        const double* forces, double* z);
  // [steps,n,components]
  void (*noise)(int64_t seed, int64_t replica, int64_t first_step, int64_t steps, int64_t n,
                int64_t components, double* out);
  // kept [B,2 steps+1,3,n], or null.
  void (*pair_rollout)(const PotentialArgs&, const SystemArgs&, const PairRolloutArgs&,
                       const double* velocities, double* frames, double* final_positions,
                       double* final_velocities, double* kept);
  void (*pair_rollout_backward)(const PotentialArgs&, const SystemArgs&, const PairRolloutArgs&,
                                const double* kept, const double* d_frames,
                                const double* d_final_positions, const double* d_final_velocities,
                                double* d_positions, double* d_velocities, double* d_theta,
                                double* d_splines, double* d_memory);
  // Of pairs of beads [2,pairs]: [pairs,components].
  void (*pair_noise)(int64_t seed, int64_t replica, int64_t step, int64_t pairs,
                     const int64_t* beads, bool fresh, int64_t components, double* out);
  // places [n] of the beads in arrays [.,3], types and masses [n].
  PairStepper* (*make_pair_stepper)(int64_t n, const int32_t* places, int64_t n_types, const int64_t* types,
                           const double* masses, const PairFrictionArgs&);
};

}  // namespace cgadv
