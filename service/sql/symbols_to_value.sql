-- $1 date, $2 kind, $3 whether only for portfolios without a history row. The symbols that they held on that date.
select distinct symbol
from (
    select distinct on (portfolio_id, symbol) symbol, quantity
    from position
    where valid_from <= $1
        and not (
            $3 and exists (
                select from portfolio_history
                where portfolio_id = position.portfolio_id and date = $1 and kind = $2
            )
        )
    order by portfolio_id, symbol, valid_from desc
) as held
where quantity <> 0
