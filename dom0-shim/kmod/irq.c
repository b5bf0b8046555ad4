// SPDX-License-Identifier: GPL-2.0
/* GSI routing: which pins of the PIC and IOAPIC, or which MSI, an interrupt line drives. The table is
 * replaced as a whole and read under RCU, so that injection works from any context.
 */
#include "socle_kvm.h"

#include <linux/rcupdate.h>

#define MSI_BASE   0xfee00000u
#define MSI_MASK   0x000fffffu
#define MSI_LEVEL  BIT(15)
#define MSI_DEST(low) ((low) >> 12 & 0xff)
#define BROADCAST  0xff

struct sk_route {
	u32 gsi;
	u32 type; /* KVM_IRQ_ROUTING_IRQCHIP or _MSI */
	union {
		struct {
			u32 chip, pin;
		};
		struct {
			u32 low, high, data;
		};
	};
};

/* The routes of a GSI are route[first[gsi]] .. route[first[gsi + 1] - 1]. */
struct sk_routes {
	struct rcu_head rcu;
	s16 gsi_of[3][KVM_IOAPIC_NUM_PINS]; /* by chip and pin; -1: none */
	u32 gsis;
	u16 *first; /* gsis + 1 of them, behind the routes */
	struct sk_route route[];
};

/* ---- delivery --------------------------------------------------------------------------------- */

/* As KVM, without looking at the base: QEMU gives some messages with an address within the local APICs' MiB. Unless
 * userspace says that it knows 32-bit ids, there is no upper half, and the 8-bit broadcast reaches x2APICs too.
 */
long sk_irq_send_msi(struct sk_vm *vm, u32 low, u32 high, u32 data)
{
	u64 address = MSI_BASE | (low & MSI_MASK);

	if (!vm->x2apic_ids)
		high = 0;
	if (!vm->x2apic_exact && MSI_DEST(low) == BROADCAST && !high)
		high = 0xffffff00;
	return hc_msi(vm->domain, address | (u64)high << 32, data);
}

static bool msi_legal(const struct sk_vm *vm, u32 high)
{
	return !(vm->x2apic_ids && high & 0xff);
}

static int route_set(struct sk_vm *vm, const struct sk_route *route, int source, int level)
{
	if (route->type == KVM_IRQ_ROUTING_MSI)
		return level ? sk_irq_send_msi(vm, route->low, route->high, route->data) : -1;
	if (route->chip == KVM_IRQCHIP_IOAPIC)
		return sk_ioapic_set_irq(vm, route->pin, source, level);
	return sk_pic_set_irq(vm, route->pin + (route->chip == KVM_IRQCHIP_PIC_SLAVE ? 8 : 0), source,
			      level);
}

static int routes_begin(const struct sk_routes *routes, u32 gsi)
{
	return routes->first[min(gsi, routes->gsis)];
}

int sk_irq_set(struct sk_vm *vm, u32 gsi, int source, int level)
{
	const struct sk_routes *routes;
	int i, r, result = -1;

	rcu_read_lock();
	routes = rcu_dereference(vm->routes);
	for (i = routes_begin(routes, gsi); gsi < routes->gsis && i < routes->first[gsi + 1]; i++) {
		r = route_set(vm, &routes->route[i], source, level);
		if (r >= 0)
			result = max(result, 0) + r;
	}
	rcu_read_unlock();
	return result;
}

void sk_irq_pulse(struct sk_vm *vm, u32 gsi)
{
	sk_irq_set(vm, gsi, SK_SOURCE_IRQFD, 1);
	sk_irq_set(vm, gsi, SK_SOURCE_IRQFD, 0);
}

int sk_irq_signal_msi(struct sk_vm *vm, const struct kvm_msi *msi)
{
	if (msi->flags & ~KVM_MSI_VALID_DEVID || !msi_legal(vm, msi->address_hi))
		return -EINVAL;
	return max(sk_irq_send_msi(vm, msi->address_lo, msi->address_hi, msi->data), 0L);
}

int sk_irq_gsi_of(struct sk_vm *vm, u32 chip, u32 pin)
{
	int gsi;

	rcu_read_lock();
	gsi = rcu_dereference(vm->routes)->gsi_of[chip][pin];
	rcu_read_unlock();
	return gsi;
}

bool sk_irq_needs_eoi(struct sk_vm *vm, u8 vector)
{
	const struct sk_routes *routes;
	bool found = false;
	int i;

	rcu_read_lock();
	routes = rcu_dereference(vm->routes);
	for (i = 0; i < routes_begin(routes, vm->reserved_pins) && !found; i++)
		found = (u8)routes->route[i].data == vector && routes->route[i].data & MSI_LEVEL;
	rcu_read_unlock();
	return found;
}

/* ---- the table -------------------------------------------------------------------------------- */

static int irqchip_route(struct sk_route *route, const struct kvm_irq_routing_irqchip *user)
{
	route->chip = user->irqchip;
	route->pin = user->pin;
	if (route->chip > KVM_IRQCHIP_IOAPIC)
		return -EINVAL;
	return route->pin < (route->chip == KVM_IRQCHIP_IOAPIC ? KVM_IOAPIC_NUM_PINS : 8) ? 0 :
											    -EINVAL;
}

static int route_from_user(const struct sk_vm *vm, struct sk_route *route,
			   const struct kvm_irq_routing_entry *user)
{
	u32 flags = user->type == KVM_IRQ_ROUTING_MSI ? KVM_MSI_VALID_DEVID : 0;

	if (user->gsi >= SK_MAX_GSI || user->flags & ~flags)
		return -EINVAL;
	route->gsi = user->gsi;
	route->type = user->type;
	if (user->type == KVM_IRQ_ROUTING_IRQCHIP)
		return vm->split ? -EINVAL : irqchip_route(route, &user->u.irqchip);
	if (user->type != KVM_IRQ_ROUTING_MSI || !msi_legal(vm, user->u.msi.address_hi))
		return -EINVAL;
	route->low = user->u.msi.address_lo;
	route->high = user->u.msi.address_hi;
	route->data = user->u.msi.data;
	return 0;
}

/* A GSI drives one MSI, or at most one pin of each chip. */
static bool routes_clash(const struct sk_route *a, const struct sk_route *b)
{
	if (a->gsi != b->gsi)
		return false;
	return a->type == KVM_IRQ_ROUTING_MSI || b->type == KVM_IRQ_ROUTING_MSI || a->chip == b->chip;
}

/* The routes of a GSI lie together after the sort, so a clash is found among the few before. */
static bool routes_insert(struct sk_routes *table, u16 *fill, const struct sk_route *route)
{
	int at = fill[route->gsi]++;
	int i;

	for (i = table->first[route->gsi]; i < at; i++)
		if (routes_clash(&table->route[i], route))
			return false;
	table->route[at] = *route;
	if (route->type == KVM_IRQ_ROUTING_IRQCHIP)
		table->gsi_of[route->chip][route->pin] = route->gsi;
	return true;
}

static struct sk_routes *routes_alloc(const struct sk_route *list, u32 count)
{
	struct sk_routes *table;
	u32 i, gsis = 0;

	for (i = 0; i < count; i++)
		gsis = max(gsis, list[i].gsi + 1);
	table = kvzalloc(struct_size(table, route, count) + (gsis + 1) * sizeof(*table->first),
			 GFP_KERNEL_ACCOUNT);
	if (!table)
		return NULL;
	table->gsis = gsis;
	table->first = (u16 *)&table->route[count];
	memset(table->gsi_of, -1, sizeof(table->gsi_of));
	for (i = 0; i < count; i++)
		table->first[list[i].gsi + 1]++;
	for (i = 0; i < gsis; i++)
		table->first[i + 1] += table->first[i];
	return table;
}

static struct sk_routes *routes_build(const struct sk_route *list, u32 count)
{
	struct sk_routes *table = routes_alloc(list, count);
	u16 *fill;
	u32 i;
	int r = -ENOMEM;

	if (!table)
		return ERR_PTR(r);
	fill = kvmalloc_array(table->gsis + 1, sizeof(*fill), GFP_KERNEL);
	if (!fill)
		goto fail;
	memcpy(fill, table->first, (table->gsis + 1) * sizeof(*fill));
	r = -EINVAL;
	for (i = 0; i < count; i++)
		if (!routes_insert(table, fill, &list[i]))
			goto fail;
	kvfree(fill);
	return table;
fail:
	kvfree(fill);
	kvfree(table);
	return ERR_PTR(r);
}

static int routes_install(struct sk_vm *vm, const struct sk_route *list, u32 count)
{
	struct sk_routes *table = routes_build(list, count);
	struct sk_routes *old;

	if (IS_ERR(table))
		return PTR_ERR(table);
	mutex_lock(&vm->routes_lock);
	old = rcu_replace_pointer(vm->routes, table, lockdep_is_held(&vm->routes_lock));
	mutex_unlock(&vm->routes_lock);
	if (old)
		kvfree_rcu(old, rcu);
	return 0;
}

int sk_irq_set_routing(struct sk_vm *vm, const struct kvm_irq_routing __user *user)
{
	struct kvm_irq_routing_entry *entries = NULL;
	struct kvm_irq_routing header;
	struct sk_route *list;
	u32 i;
	int r = 0;

	if (copy_from_user(&header, user, sizeof(header)))
		return -EFAULT;
	if (!smp_load_acquire(&vm->irqchip) || header.nr > SK_MAX_GSI || header.flags)
		return -EINVAL;
	list = kvcalloc(max(header.nr, 1u), sizeof(*list), GFP_KERNEL);
	if (!list)
		return -ENOMEM;
	if (header.nr) {
		entries = vmemdup_user(user->entries, array_size(sizeof(*entries), header.nr));
		if (IS_ERR(entries)) {
			kvfree(list);
			return PTR_ERR(entries);
		}
	}
	for (i = 0; i < header.nr && !r; i++)
		r = route_from_user(vm, &list[i], &entries[i]);
	if (!r)
		r = routes_install(vm, list, header.nr);
	kvfree(entries);
	kvfree(list);
	return r;
}

/* The PC's own wiring: GSI 0..15 to both PICs and the IOAPIC (ISA IRQ 0 to its pin 2), 16..23 to the IOAPIC. */
static int set_default_routes(struct sk_vm *vm)
{
	struct sk_route list[16 + KVM_IOAPIC_NUM_PINS] = {};
	u32 gsi, count = 0;

	for (gsi = 0; gsi < KVM_IOAPIC_NUM_PINS; gsi++) {
		if (gsi < 16)
			list[count++] = (struct sk_route){
				.gsi = gsi,
				.type = KVM_IRQ_ROUTING_IRQCHIP,
				.chip = gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				.pin = gsi & 7,
			};
		if (gsi == 2)
			continue; /* nothing drives the cascade's line */
		list[count++] = (struct sk_route){
			.gsi = gsi,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.chip = KVM_IRQCHIP_IOAPIC,
			.pin = gsi ? gsi : 2,
		};
	}
	return routes_install(vm, list, count);
}

long sk_irq_enable_x2apic(struct sk_vm *vm, u64 flags)
{
	if (flags & ~(u64)SK_X2APIC_FLAGS)
		return -EINVAL;
	if (flags & KVM_X2APIC_API_USE_32BIT_IDS)
		vm->x2apic_ids = true;
	if (flags & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)
		vm->x2apic_exact = true;
	return 0;
}

/* The local APICs only: userspace has the PIC and the IOAPIC, whose pins are routed to MSIs. */
long sk_irq_enable_split(struct sk_vm *vm, u64 pins)
{
	long r = -EEXIST;

	if (pins > SK_MAX_GSI)
		return -EINVAL;
	mutex_lock(&vm->lock);
	if (vm->irqchip || vm->vcpu_count)
		goto out;
	r = routes_install(vm, NULL, 0);
	if (!r)
		r = hc3(SOCLE_HC_DOMAIN_SET, vm->domain, SOCLE_PARAM_LAPIC, 1);
	if (r)
		goto out;
	vm->split = true;
	vm->reserved_pins = pins;
	smp_store_release(&vm->irqchip, true);
out:
	mutex_unlock(&vm->lock);
	return r;
}

int sk_irq_init(struct sk_vm *vm)
{
	BUILD_BUG_ON(KVM_IRQCHIP_PIC_MASTER != 0 || KVM_IRQCHIP_IOAPIC != 2);
	mutex_init(&vm->routes_lock);
	spin_lock_init(&vm->irqfd_lock);
	INIT_LIST_HEAD(&vm->irqfds);
	INIT_LIST_HEAD(&vm->resamplers);
	return set_default_routes(vm);
}

void sk_irq_destroy(struct sk_vm *vm)
{
	kvfree(rcu_dereference_protected(vm->routes, true));
}
