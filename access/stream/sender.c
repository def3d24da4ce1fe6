/* SPDX-License-Identifier: Apache-2.0
 *
 * Sending on a connection: a queue and the coroutine that empties it. It runs after those that
 * filled the queue in this turn of the loop, so everything they queued leaves in one writev. What
 * an item holds (its request's place and memory) is given back once it has left: a client that
 * does not read its answers stops itself. */
#include "access/stream/stream.h"

#define TX_IOVS      96 /* of one writev */
#define END_PATIENCE (2 * NSEC_PER_SEC)

static struct stream_item *item_pop(struct list *queue)
{
    return LIST_ENTRY(list_pop_front(queue), struct stream_item, link);
}

/* As much of the queue as one writev takes. *ret_last: the connection ends after it. */
static co_fn int send_some(struct stream_conn *c, bool *ret_last)
{
    const struct stream_ops *ops = c->server->ops;
    struct iovec iov[TX_IOVS];
    struct list out;
    int n = 0, rc;

    list_init(&out);
    while (!list_empty(&c->tx) && n + STREAM_PIECES <= TX_IOVS) {
        struct stream_item *item = item_pop(&c->tx);

        *ret_last = *ret_last || item->last;
        n += ops->pieces(c, item, iov + n);
        list_push_back(&out, &item->link);
    }
    rc = net_writev_full(c->net, iov, n);
    while (!list_empty(&out))
        ops->sent(c, item_pop(&out));
    co_cond_broadcast(&c->tx_progress);
    return rc;
}

static co_fn int sender_main(void *arg)
{
    struct stream_conn *c = arg;
    bool last = false;
    int rc = 0;

    while (rc == 0 && !last) {
        if (!list_empty(&c->tx))
            rc = send_some(c, &last);
        else if (c->tx_closing)
            break;
        else
            rc = co_cond_wait(&c->tx_wake);
    }
    c->tx_ended = true;
    while (!list_empty(&c->tx))
        c->server->ops->sent(c, item_pop(&c->tx));
    co_cond_broadcast(&c->tx_progress);
    if (rc < 0)
        stream_break(c, "the client takes no answers");
    else if (last)
        stream_break(c, "the last answer was sent");
    return 0;
}

void stream_sender_start(struct stream_conn *c)
{
    co_spawn_detached_deadline(&c->sender, "stream-sender", sender_main, c);
}

void stream_queue(struct stream_conn *c, struct stream_item *item)
{
    if (c->tx_ended) {
        c->server->ops->sent(c, item);
        return;
    }
    list_push_back(&c->tx, &item->link);
    co_cond_signal(&c->tx_wake);
}

co_fn void stream_sender_end(struct stream_conn *c)
{
    nsec_t former = co_deadline_push(co_now() + END_PATIENCE);

    c->tx_closing = true;
    co_cond_signal(&c->tx_wake);
    while (c->sender.count > 0 && !c->tx_ended && co_cond_wait(&c->tx_progress) == 0)
        ;
    co_deadline_restore(former);
    stream_break(c, "the connection ends");
    co_group_join(&c->sender);
}
