// SPDX-License-Identifier: GPL-2.0
/* GSI routing: which pins of the PIC and IOAPIC, or which MSI, an interrupt line drives. The table is
 * replaced as a whole and read under RCU, so that injection works from any context.
 */
#include "socle_kvm.h"

#include <linux/rcupdate.h>

#define MSI_BASE 0xfee00000u
#define MSI_MASK 0x000fffffu

struct sk_route {
	u32 gsi;
	u32 type; /* KVM_IRQ_ROUTING_IRQCHIP or _MSI */
	union {
		struct {
			u32 chip, pin;
		};
		struct {
			u64 address;
			u32 data;
		};
	};
};

struct sk_routes {
	struct rcu_head rcu;
	u16 first[SK_MAX_GSI + 1]; /* the routes of gsi are route[first[gsi]] .. route[first[gsi + 1] - 1] */
	struct sk_route route[];
};

/* As KVM, without looking at the base: QEMU gives some messages with an address within the local APICs' MiB. */
static u64 msi_address(u32 low)
{
	return MSI_BASE | (low & MSI_MASK);
}

/* ---- delivery --------------------------------------------------------------------------------- */

static int route_set(struct sk_vm *vm, const struct sk_route *route, int source, int level)
{
	if (route->type == KVM_IRQ_ROUTING_MSI)
		return level ? hc_msi(vm->domain, route->address, route->data) : -1;
	if (route->chip == KVM_IRQCHIP_IOAPIC)
		return sk_ioapic_set_irq(vm, route->pin, source, level);
	return sk_pic_set_irq(vm, route->pin + (route->chip == KVM_IRQCHIP_PIC_SLAVE ? 8 : 0), source,
			      level);
}

int sk_irq_set(struct sk_vm *vm, u32 gsi, int source, int level)
{
	const struct sk_routes *routes;
	int i, r, result = -1;

	if (gsi >= SK_MAX_GSI)
		return -1;
	rcu_read_lock();
	routes = rcu_dereference(vm->routes);
	for (i = routes->first[gsi]; i < routes->first[gsi + 1]; i++) {
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
	long r;

	if (msi->flags)
		return -EINVAL;
	r = hc_msi(vm->domain, msi_address(msi->address_lo), msi->data);
	return r > 0 ? 1 : 0;
}

/* ---- the table -------------------------------------------------------------------------------- */

static int route_from_user(struct sk_route *route, const struct kvm_irq_routing_entry *user)
{
	if (user->gsi >= SK_MAX_GSI || user->flags)
		return -EINVAL;
	route->gsi = user->gsi;
	route->type = user->type;
	switch (user->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		if (user->u.irqchip.irqchip > KVM_IRQCHIP_IOAPIC)
			return -EINVAL;
		route->chip = user->u.irqchip.irqchip;
		route->pin = user->u.irqchip.pin;
		return route->pin < (route->chip == KVM_IRQCHIP_IOAPIC ? KVM_IOAPIC_NUM_PINS : 8) ?
			       0 :
			       -EINVAL;
	case KVM_IRQ_ROUTING_MSI:
		route->address = msi_address(user->u.msi.address_lo);
		route->data = user->u.msi.data;
		return 0;
	default:
		return -EINVAL;
	}
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
	return true;
}

static struct sk_routes *routes_build(const struct sk_route *list, u32 count)
{
	struct sk_routes *table;
	u16 *fill;
	u32 i;

	table = kvzalloc(struct_size(table, route, count), GFP_KERNEL_ACCOUNT);
	fill = kvmalloc_array(SK_MAX_GSI + 1, sizeof(*fill), GFP_KERNEL);
	if (!table || !fill)
		goto fail;
	for (i = 0; i < count; i++)
		table->first[list[i].gsi + 1]++;
	for (i = 0; i < SK_MAX_GSI; i++)
		table->first[i + 1] += table->first[i];
	memcpy(fill, table->first, sizeof(table->first));
	for (i = 0; i < count; i++)
		if (!routes_insert(table, fill, &list[i]))
			goto clash;
	kvfree(fill);
	return table;
clash:
	kvfree(fill);
	kvfree(table);
	return ERR_PTR(-EINVAL);
fail:
	kvfree(fill);
	kvfree(table);
	return ERR_PTR(-ENOMEM);
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
	if (header.nr > SK_MAX_GSI || header.flags)
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
		r = route_from_user(&list[i], &entries[i]);
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

int sk_irq_init(struct sk_vm *vm)
{
	BUILD_BUG_ON(KVM_IRQCHIP_PIC_MASTER != 0 || KVM_IRQCHIP_IOAPIC != 2);
	mutex_init(&vm->routes_lock);
	spin_lock_init(&vm->irqfd_lock);
	INIT_LIST_HEAD(&vm->irqfds);
	return set_default_routes(vm);
}

void sk_irq_destroy(struct sk_vm *vm)
{
	kvfree(rcu_dereference_protected(vm->routes, true));
}
