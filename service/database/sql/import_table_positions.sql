create temporary table imported (
    line integer, portfolio_id uuid, user_id uuid, symbol text, quantity numeric, valid_from date
) on commit drop
