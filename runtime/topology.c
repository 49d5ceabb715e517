/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where threads and memory go, by hwloc; the only file that includes it. The order in which
 * processors are used is worked out once at open, so that placing is a pure look-up:
 *
 *   first thread of every core, node after node; then the second threads, node after node; ...
 */
#include "runtime/runtime.h"

#include <hwloc.h>
#include <string.h>

struct qy_topology {
    struct qy_allocator mem;
    hwloc_topology_t hw;
    struct qy_place *order; /* [n_order] processors in the order in which threads get them */
    uint32_t n_order;
    int bindable; /* it describes this machine, not a made-up one                          */
};

static const char synthetic_prefix[] = "synthetic:";
static const char xml_prefix[] = "xml:";

static uint32_t count_objects(hwloc_topology_t hw, hwloc_obj_type_t type)
{
    int n = hwloc_get_nbobjs_by_type(hw, type);

    return n > 0 ? (uint32_t)n : 0;
}

/* Text that follows prefix, or NULL when it does not start the source. */
static const char *after_prefix(const char *source, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(source, prefix, n) == 0 ? source + n : NULL;
}

/* Leaves out processors that the process is not bound to (taskset, a job launcher). hwloc itself
 * leaves out those that the cgroup forbids. */
static void restrict_to_process(hwloc_topology_t hw)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();

    if (set == NULL) {
        return;
    }
    if (hwloc_get_cpubind(hw, set, HWLOC_CPUBIND_PROCESS) == 0 && !hwloc_bitmap_iszero(set)) {
        (void)hwloc_topology_restrict(hw, set, 0); /* EINVAL leaves the topology as it was */
    }
    hwloc_bitmap_free(set);
}

static enum qy_status load(hwloc_topology_t *hw, const char *source, struct qy_error *err)
{
    const char *text = NULL;
    int rc = 0;

    if (hwloc_topology_init(hw) != 0) {
        return qy_error_set(err, QY_ERR_NOMEM, "topology: no memory");
    }
    if (source != NULL) {
        if ((text = after_prefix(source, synthetic_prefix)) != NULL) {
            rc = hwloc_topology_set_synthetic(*hw, text);
        } else if ((text = after_prefix(source, xml_prefix)) != NULL) {
            rc = hwloc_topology_set_xml(*hw, text);
        } else {
            rc = -1;
        }
    }
    if (rc != 0 || hwloc_topology_load(*hw) != 0) {
        hwloc_topology_destroy(*hw);
        return qy_error_set(err, QY_ERR_INVALID,
                            "topology '%s': hwloc refused it; 'synthetic:<description>' and "
                            "'xml:<path>' are accepted",
                            source == NULL ? "this machine" : source);
    }
    if (source == NULL) {
        restrict_to_process(*hw);
    }
    return QY_OK;
}

/* Core i, or processing unit i where hwloc sees no cores. */
static hwloc_obj_t core_at(hwloc_topology_t hw, uint32_t i)
{
    hwloc_obj_t core = hwloc_get_obj_by_type(hw, HWLOC_OBJ_CORE, i);

    return core != NULL ? core : hwloc_get_obj_by_type(hw, HWLOC_OBJ_PU, i);
}

/* Adds the thread'th processing unit of every core that starts inside cpuset. */
static void add_round(struct qy_topology *topology, hwloc_const_cpuset_t cpuset, int node,
                      unsigned thread, hwloc_bitmap_t taken)
{
    uint32_t n_cores = count_objects(topology->hw, HWLOC_OBJ_CORE);

    n_cores = n_cores > 0 ? n_cores : count_objects(topology->hw, HWLOC_OBJ_PU);
    for (uint32_t i = 0; i < n_cores; i++) {
        hwloc_const_cpuset_t core = core_at(topology->hw, i)->cpuset;
        int pu = hwloc_bitmap_first(core);

        if (pu < 0 || (cpuset != NULL && !hwloc_bitmap_isset(cpuset, (unsigned)pu))) {
            continue;
        }
        for (unsigned skip = thread; skip > 0 && pu >= 0; skip--) {
            pu = hwloc_bitmap_next(core, pu);
        }
        /* taken: memory-only views of the same cores (HBM beside DRAM) must not add them twice */
        if (pu < 0 || hwloc_bitmap_isset(taken, (unsigned)pu)) {
            continue;
        }
        hwloc_bitmap_set(taken, (unsigned)pu);
        topology->order[topology->n_order++] = (struct qy_place){.pu = pu, .node = node};
    }
}

/* Fills order: rounds over the threads of a core, nodes within, cores within. The last visit of a
 * round has no node: cores that belong to none. */
static void fill_order(struct qy_topology *topology, uint32_t n_pus, hwloc_bitmap_t taken)
{
    uint32_t n_nodes = count_objects(topology->hw, HWLOC_OBJ_NUMANODE);

    for (unsigned thread = 0; thread < n_pus && topology->n_order < n_pus; thread++) {
        for (uint32_t i = 0; i < n_nodes; i++) {
            hwloc_obj_t node = hwloc_get_obj_by_type(topology->hw, HWLOC_OBJ_NUMANODE, i);

            add_round(topology, node->cpuset, (int)node->os_index, thread, taken);
        }
        add_round(topology, NULL, -1, thread, taken);
    }
}

enum qy_status qy_topology_open(const struct qy_allocator *mem, const char *source,
                                struct qy_topology **out, struct qy_error *err)
{
    struct qy_topology *topology = qy_alloc_zero(mem, sizeof(*topology));
    hwloc_bitmap_t taken;
    uint32_t n_pus;
    enum qy_status st;

    if (topology == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "topology: no memory");
    }
    topology->mem = *mem;
    st = load(&topology->hw, source, err);
    if (st != QY_OK) {
        goto err_free;
    }
    n_pus = count_objects(topology->hw, HWLOC_OBJ_PU);
    topology->bindable = source == NULL && hwloc_topology_is_thissystem(topology->hw);
    topology->order = qy_alloc_zero(mem, n_pus * sizeof(*topology->order));
    taken = hwloc_bitmap_alloc();
    if (topology->order == NULL || taken == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "topology: no memory for %u processors", n_pus);
        goto err_destroy;
    }
    fill_order(topology, n_pus, taken);
    hwloc_bitmap_free(taken);
    *out = topology;
    return QY_OK;

err_destroy:
    hwloc_bitmap_free(taken);
    qy_free(mem, topology->order);
    hwloc_topology_destroy(topology->hw);
err_free:
    qy_free(mem, topology);
    return st;
}

void qy_topology_close(struct qy_topology *topology)
{
    if (topology != NULL) {
        struct qy_allocator mem = topology->mem;

        hwloc_topology_destroy(topology->hw);
        qy_free(&mem, topology->order);
        qy_free(&mem, topology);
    }
}

void qy_topology_describe(const struct qy_topology *topology, struct qy_machine *machine)
{
    uint32_t packages = count_objects(topology->hw, HWLOC_OBJ_PACKAGE);
    uint32_t cores = count_objects(topology->hw, HWLOC_OBJ_CORE);
    uint32_t n_nodes = count_objects(topology->hw, HWLOC_OBJ_NUMANODE), nodes = 0;

    for (uint32_t i = 0; i < n_nodes; i++) { /* those without a processor are memory only */
        nodes += !hwloc_bitmap_iszero(
            hwloc_get_obj_by_type(topology->hw, HWLOC_OBJ_NUMANODE, i)->cpuset);
    }
    machine->pus = count_objects(topology->hw, HWLOC_OBJ_PU);
    machine->cores = cores > 0 ? cores : machine->pus;
    machine->nodes = nodes > 0 ? nodes : 1;
    machine->packages = packages > 0 ? packages : 1;
}

void qy_topology_place(const struct qy_topology *topology, uint32_t n_threads, enum qy_bind bind,
                       struct qy_place *places)
{
    for (uint32_t i = 0; i < n_threads; i++) {
        places[i] = (struct qy_place){.pu = -1, .node = -1};
        if (bind == QY_BIND_NONE || topology->n_order == 0) {
            continue;
        }
        places[i] = topology->order[i % topology->n_order];
        if (bind == QY_BIND_NUMA) {
            places[i].pu = -1;
        }
    }
}

static hwloc_obj_t find_node(const struct qy_topology *topology, int node)
{
    return node < 0 ? NULL : hwloc_get_numanode_obj_by_os_index(topology->hw, (unsigned)node);
}

enum qy_status qy_topology_bind_thread(struct qy_topology *topology, const struct qy_place *place)
{
    hwloc_bitmap_t set;
    hwloc_obj_t node;
    enum qy_status st = QY_OK;

    if (place->pu < 0 && place->node < 0) {
        return QY_OK;
    }
    if (!topology->bindable) {
        return QY_ERR_UNSUPPORTED;
    }
    set = hwloc_bitmap_alloc();
    if (set == NULL) {
        return QY_ERR_NOMEM;
    }
    node = find_node(topology, place->node);
    if (place->pu >= 0) {
        hwloc_bitmap_only(set, (unsigned)place->pu);
    } else if (node != NULL) {
        hwloc_bitmap_copy(set, node->cpuset);
    }
    if (hwloc_bitmap_iszero(set)) {
        st = QY_ERR_NOT_FOUND;
    } else if (hwloc_set_cpubind(topology->hw, set, HWLOC_CPUBIND_THREAD) != 0) {
        st = QY_ERR_UNSUPPORTED;
    }
    hwloc_bitmap_free(set);
    return st;
}

/* The node is preferred, not forced: when it is full, pages from elsewhere beat being killed. */
enum qy_status qy_topology_bind_memory(struct qy_topology *topology, void *ptr, size_t bytes,
                                       int node)
{
    hwloc_obj_t obj = find_node(topology, node);

    if (obj == NULL) {
        return QY_ERR_NOT_FOUND;
    }
    if (!topology->bindable ||
        hwloc_set_area_membind(topology->hw, ptr, bytes, obj->nodeset, HWLOC_MEMBIND_BIND,
                               HWLOC_MEMBIND_BYNODESET) != 0) {
        return QY_ERR_UNSUPPORTED;
    }
    return QY_OK;
}
