-- $1 a portfolio or null, $2 limit. The next portfolios in key order.
select id from portfolio where ($1::uuid is null or id > $1) order by id limit $2
